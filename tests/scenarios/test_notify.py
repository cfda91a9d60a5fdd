"""D17: what is told after a deploy, and that a dead channel delays nothing and is tried again."""

from __future__ import annotations

import threading

from tests.channel import ChannelServer
from tests.world import World, eventually

SERVICE = """
[services.job]
source = "job"
target = "{live}/job"
runtime = "command"
command = ["sh", "run.sh"]

[notify]
urls = [{ env = "SHOP_CHANNEL" }]
"""


def test_failure_recovery_routine_and_nothing_at_all(world: World, channel: ChannelServer) -> None:
    world.project(SERVICE, {"job/run.sh": "echo fine\n"})
    assert world.deploy()["status"] == "deployed"
    eventually(lambda: len(channel.taken) == 1, "the first deploy is told")
    world.publish({"README.md": "words\n"})
    assert world.deploy()["services"] == []
    bad = world.publish({"job/run.sh": "echo '@everyone no table'; exit 3\n"}, "Bad @here")
    assert world.deploy(ok=(1,))["status"] == "rolled_back"
    eventually(lambda: len(channel.taken) == 2, "the failure is told, the README was not")
    failure = channel.taken[1]
    assert (failure["type"], failure["title"]) == ("failure", "shop production: failed and was rolled back")
    for part in (bad[:12], "Ada Example", "Services: job", "Next: homeport", "no table"):
        assert part in failure["message"]
    assert "@everyone" not in failure["message"] and "@here" not in failure["message"]
    world.publish({"job/run.sh": "echo better\n"}, "Better")
    assert world.deploy()["status"] == "deployed"
    eventually(lambda: len(channel.taken) == 3, "the recovery is told")
    assert (channel.taken[2]["title"], "Author: Ada Example" in channel.taken[2]["message"]) == (
        "shop production: recovered", True)  # fmt: skip
    assert world.homeport("notify", "test").stdout.startswith("env SHOP_CHANNEL: it took the message")


def test_a_dead_channel_delays_nothing_and_gets_the_message_when_it_is_back(world: World, channel: ChannelServer) -> None:
    """Down and slow; then one that wants fewer messages (429)."""
    channel.status, channel.answers = 503, threading.Event()
    world.project(SERVICE, {"job/run.sh": "echo fine\n"})
    assert world.deploy()["status"] == "deployed"
    eventually(lambda: channel.waits, "the deploy has ended, and the channel has not answered yet")
    channel.answers.set()
    eventually(lambda: channel.asked >= 1, "the channel was asked")
    channel.status = 429
    said = world.json("notify", "test", ok=(1,))
    assert (said["channels"][0]["ok"], said["waiting"]) == (False, 1)
    world.kill_homeport()
    channel.status = 200
    with_time = "UPDATE outbox SET due = 0"
    world.sql(with_time)
    world.publish({"job/run.sh": "echo two\n"})
    assert world.deploy()["status"] == "deployed"
    eventually(lambda: len(channel.taken) == 2, "both messages arrived")
    eventually(lambda: world.json("notify", "test")["waiting"] == 0, "what was taken waits no more")


def test_a_channel_that_is_led_back_to_the_machine_is_refused_until_host_toml_names_it(
    world: World, channel: ChannelServer
) -> None:
    world.project(SERVICE, {"job/run.sh": "echo fine\n"})
    world.more["SHOP_CHANNEL"] = f"json://2130706433:{channel.port}/"
    refused = world.homeport("notify", "test", ok=(1,))
    said = refused.stdout + refused.stderr
    assert f"127.0.0.1 port {channel.port} leads back to this machine" in said and "`channels` in host.toml" in said
    assert channel.asked == 0
    world.host_file.write_text(f'channels = ["127.0.0.1:{channel.port}"]\n{world.host_file.read_text()}')
    assert world.homeport("notify", "test").stdout and channel.asked == 1
    world.more["SHOP_CHANNEL"] = f"json://localhost:{channel.port}/"
    assert world.homeport("notify", "test").stdout and channel.asked == 2, "what names it plainly means it"
