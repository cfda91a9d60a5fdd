"""D9 D11 D12 D13 E3: services of a stack on a real engine in swarm mode: deployed, checked, undone, secrets left alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker_host import BOX, DockerHost, why_not
from tests.world import World

PROJECT = """
[project]
name = "shop"
target = "{live}/stack"

[environments.production]
branch = "main"
checks = [{{ containers = 2, within = "20s", every = "100ms" }}]

[services.web]
source = "web"
runtime = "swarm"
watch = ["compose.yaml"]
validate = ["test", "-e", "/etc/site/here"]
  [[services.web.checks]]
  http = "http://127.0.0.1:8080/version"
  contains = "fine"
  within = "20s"
  every = "100ms"

[services.idle]
source = "site"
runtime = "swarm"
watch = ["compose.yaml"]
"""
QUICK = "update_config: {monitor: 50ms, order: stop-first}, restart_policy: {delay: 50ms}"
COMPOSE = f"""\
services:
  web:
    build: ./web
    networks: [outside]
    stop_signal: SIGKILL
    secrets: [token]
    environment: ["GREETING=${{GREETING}}"]
    volumes: ["./site:/etc/site:ro"]
    command: ["/bin/sh", "/www/run.sh"]
    deploy: {{{QUICK}}}
  idle:
    image: {BOX}
    networks: [outside]
    stop_signal: SIGKILL
    volumes: ["./site:/etc/site:ro"]
    command: ["sleep", "100000"]
    deploy: {{{QUICK}}}
networks:
  outside: {{external: true, name: host}}
secrets:
  token: {{external: true}}
"""
RUN = 'echo "fine one $GREETING $(cat /run/secrets/token)" > /www/version; exec httpd -f -p 127.0.0.1:8080 -h /www\n'


@pytest.fixture
def engine(world: World, tmp_path: Path) -> Iterator[DockerHost]:
    if because := why_not():
        pytest.skip(because)
    (tmp_path / "docker").mkdir()
    host = DockerHost(tmp_path / "docker", swarm=True)
    world.more.update(host.env)
    world.enter = lambda cwd: host.enter
    try:
        yield host
    finally:
        host.close()


@pytest.mark.timeout(300)  # eight deploys on a machine that may be busy with other tests
def test_a_stack_is_deployed_undone_and_gone_back_to_and_its_secrets_stay(world: World, engine: DockerHost) -> None:
    def page() -> str:
        asked = [*engine.enter, "busybox", "wget", "-qO-", "http://127.0.0.1:8080/version"]
        return subprocess.run(asked, capture_output=True, text=True).stdout.strip()

    def tasks() -> dict[str, str]:
        rows = engine.docker("stack", "ps", "stack", "--filter", "desired-state=running", "--format", "json").splitlines()
        return {row["Name"].split(".")[0]: row["ID"] for row in map(json.loads, rows)}

    (world.root / "token").write_text("s3cret")
    secret = engine.docker("secret", "create", "token", str(world.root / "token"))
    (world.live / "stack").mkdir()
    (world.live / "stack/.env").write_text("GREETING=hello\n")
    first = world.publish({
        "homeport.toml": PROJECT.format(live=world.live), "compose.yaml": COMPOSE, "site/here": "1\n",
        "web/Dockerfile": f"FROM {BOX}\nCOPY . /www/\n", "web/run.sh": RUN,
    })  # fmt: skip
    assert world.deploy()["status"] == "deployed"
    assert page() == "fine one hello s3cret"
    assert [s["state"] for s in world.json("status")["services"]] == ["running", "running"]
    before = tasks()
    assert world.deploy()["status"] == "unchanged"

    world.publish({"web/run.sh": RUN.replace("one", "two")})
    assert world.deploy()["services"] == ["web"]
    assert (page(), tasks()["stack_idle"]) == ("fine two hello s3cret", before["stack_idle"])

    now = tasks()
    bad = world.publish({"web/run.sh": RUN.replace("fine", "ill"), **world.patience("1s")})
    assert world.deploy(ok=(1,))["status"] == "rolled_back"
    assert (page(), [b["sha"] for b in world.json("status")["blocked"]]) == ("fine two hello s3cret", [bad])
    patient = COMPOSE.replace("monitor: 50ms", "monitor: 5s", 1)  # a slow machine takes longer to end what it started
    world.publish({"web/run.sh": "echo no such table; exit 3\n", "compose.yaml": patient})
    done = world.deploy(ok=(1,))
    assert (done["status"], "non-zero exit (3)" in done["errorSummary"]) == ("rolled_back", True), done["errorSummary"]
    assert (page(), tasks()["stack_idle"]) == ("fine two hello s3cret", now["stack_idle"])
    assert "no such table" in world.homeport("logs", done["deployId"]).stdout

    done = world.json("rollback", first)
    assert (done["status"], page()) == ("deployed", "fine one hello s3cret")
    assert engine.docker("secret", "ls", "--quiet") == secret

    # nothing of the service has changed: it is updated by force, and only that one
    was = tasks()
    world.homeport("restart", "idle")
    assert (tasks()["stack_web"], tasks()["stack_idle"] != was["stack_idle"]) == (was["stack_web"], True)
