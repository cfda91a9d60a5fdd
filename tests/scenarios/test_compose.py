"""D9 D11 D12 D13 D14 E3: services of a Compose file on a real engine: built beside, brought up, checked, undone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.docker_host import BOX, DockerHost, find_old_compose, why_not
from tests.world import World, eventually

PROJECT = """
[services.web]
source = "web"
runtime = "compose"
env = { WEB_PORT = "%(web)d", PROXY_PORT = "%(proxy)d" }
  [[services.web.checks]]
  http = "http://127.0.0.1:%(web)d/version.txt"
  within = "20s"
  every = "50ms"
  [[services.web.checks]]
  containers = ["web"]
  within = "20s"
  every = "100ms"

[services.proxy]
source = "proxy"
runtime = "compose"
env = { WEB_PORT = "%(web)d", PROXY_PORT = "%(proxy)d" }
validate = ["grep", "-q", "site", "/etc/site.conf"]
"""
COMPOSE = """\
services:
  web:
    build: ./web
    network_mode: host
    stop_signal: SIGKILL
    env_file: .env
    command: ["httpd", "-f", "-p", "127.0.0.1:${WEB_PORT}", "-h", "/www"]
  proxy:
    image: homeport-test/box
    network_mode: host
    stop_signal: SIGKILL
    volumes: ["./proxy/site.conf:/etc/site.conf:ro"]
    command:
      - /bin/sh
      - -c
      - mkdir -p /www && cp /etc/site.conf /www/index.html && exec httpd -f -p 127.0.0.1:${PROXY_PORT} -h /www
"""
DOCKERFILE = f"FROM {BOX}\nCOPY . /www/\n"
FILES: dict[str, str | None] = {
    "compose.yaml": COMPOSE, "web/Dockerfile": DOCKERFILE, "web/version.txt": "one\n", "proxy/site.conf": "site one\n",
}  # fmt: skip
numbers = itertools.count()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerHost]:
    if because := why_not():
        pytest.skip(because)
    host = DockerHost(tmp_path_factory.mktemp("docker"))
    try:
        yield host
    finally:
        host.close()


class Stack:
    """A world whose whole checkout is live, with the Compose project `name`."""

    def __init__(self, world: World, engine: DockerHost, env: dict[str, str]) -> None:
        self.world, self.engine = world, engine
        self.name = f"stack{next(numbers)}"
        world.more.update(env)
        self.web, self.proxy = world.free_port(), world.free_port()
        (world.live / self.name).mkdir()
        (world.live / self.name / ".env").write_text("SECRET=of-the-host\n")
        text = PROJECT % {"web": self.web, "proxy": self.proxy}
        world.project(text, FILES)
        told = (world.clone / "homeport.toml").read_text()
        target = f'name = "shop"\nkeep = 2\ntarget = "{world.live}/{self.name}"'
        world.publish({"homeport.toml": told.replace('name = "shop"', target)})

    def containers(self) -> dict[str, str]:
        """Service and container id (and when it was started) of all that run."""
        told = '{{.Label "com.docker.compose.service"}} {{.ID}}'
        mine = f"label=com.docker.compose.project={self.name}"
        rows = self.engine.docker("ps", "--no-trunc", "--filter", mine, "--format", told).splitlines()
        ids = dict(row.split() for row in rows)
        return {n: id + self.engine.docker("inspect", "-f", "{{.State.StartedAt}}", id) for n, id in ids.items()}

    def kept(self) -> list[str]:
        return self.engine.docker("image", "ls", "-q", f"homeport/{self.name}-web").split()

    def answers(self) -> tuple[str, str]:
        return self.world.get(self.web, "/version.txt")[1].strip(), self.world.get(self.proxy)[1].strip()


@pytest.fixture
def stack(world: World, engine: DockerHost) -> Stack:
    """A deployed stack."""
    made = Stack(world, engine, engine.env)
    assert world.deploy()["status"] == "deployed"
    assert made.answers() == ("one", "site one")
    return made


def built(lines: list[dict[str, object]]) -> bool:
    return any(e["type"] == "deploy.log" and "FROM" in str(e["line"]) for e in lines)


def test_only_what_changed_is_built_and_made_anew_and_a_rollback_builds_nothing(stack: Stack) -> None:
    world, first = stack.world, stack.containers()
    sha = world.git("rev-parse", "HEAD")
    assert world.deploy()["status"] == "unchanged"
    assert world.homeport("run", "-s", "web", "--", "cat", "/www/version.txt").stdout == "one\n"
    world.publish({"web/version.txt": "two\n", "README.md": "words\n"})
    lines = world.homeport("--json", "deploy").lines
    assert (lines[-1]["status"], lines[-1]["services"], built(lines)) == ("deployed", ["web"], True)
    second = stack.containers()
    assert stack.answers() == ("two", "site one")
    assert (second["proxy"] == first["proxy"], second["web"] == first["web"]) == (True, False)
    world.publish({"README.md": "other words\n"})
    assert world.deploy()["services"] == []
    assert stack.containers() == second
    lines = world.homeport("--json", "rollback", sha).lines
    assert (lines[-1]["status"], built(lines)) == ("deployed", False)
    assert stack.answers() == ("one", "site one")
    assert world.json("status")["services"][0]["state"] == "running"
    assert len(stack.kept()) == 2
    world.homeport("unblock", world.git("rev-parse", "HEAD"))
    world.publish({"web/version.txt": "three\n"})
    assert (world.deploy()["status"], stack.answers()) == ("deployed", ("three", "site one"))
    eventually(lambda: len(stack.kept()) == 2, "with keep = 2 the oldest image goes, right after the deploy")


def test_the_older_docker_compose_does_the_same(world: World, engine: DockerHost) -> None:
    if find_old_compose() is None:
        return  # this system's docker-compose is Compose v2 itself
    stack = Stack(world, engine, engine.old)
    assert world.deploy()["status"] == "deployed"
    first = stack.containers()
    world.publish({"web/version.txt": "two\n"})
    assert world.deploy()["status"] == "deployed"
    assert stack.answers() == ("two", "site one")
    assert stack.containers()["proxy"] == first["proxy"]
    world.publish({"web/version.txt": None, "proxy/site.conf": "site two\n", **world.patience("1s")})
    assert world.deploy(ok=(1,))["status"] == "rolled_back"
    assert stack.answers() == ("two", "site one")


def test_a_version_that_fails_its_checks_or_is_unhealthy_is_rolled_back_with_the_image_it_had(stack: Stack) -> None:
    world = stack.world
    bad = world.publish({"web/version.txt": None, "web/other.txt": "x\n", **world.patience("1s")})
    done = world.deploy(ok=(1,))
    assert (done["status"], stack.answers()) == ("rolled_back", ("one", "site one"))
    assert [b["sha"] for b in world.json("status")["blocked"]] == [bad]
    assert world.get(stack.web, "/other.txt")[0] == 404
    health = '    healthcheck: {test: ["CMD", "test", "-e", "/www/well"], interval: 100ms, retries: 2, timeout: 2s}\n'
    with_health = COMPOSE.replace("    build: ./web\n", "    build: ./web\n" + health)
    world.publish({"compose.yaml": with_health, "web/version.txt": "two\n"})
    done = world.deploy(ok=(1,))
    assert (done["status"], "not well: " in done["errorSummary"]) == ("rolled_back", True), done
    eventually(lambda: stack.answers()[0] == "one", "the old version answers")
    world.publish({"web/well": "yes\n", **world.patience("20s")})
    assert (world.deploy()["status"], stack.answers()[0]) == ("deployed", "two")


def test_what_cannot_be_built_or_read_touches_nothing_live(stack: Stack) -> None:
    world, before = stack.world, stack.containers()
    for broken, code in (
        ({"web/Dockerfile": DOCKERFILE + "RUN false\n"}, "build"),
        ({"compose.yaml": "services: [", "web/Dockerfile": DOCKERFILE, "web/x": "x"}, "bad-compose"),
        ({"compose.yaml": COMPOSE.replace("  web:", "  shop:"), "web/x": "y"}, "bad-compose"),
    ):
        world.publish(dict(broken))
        done = world.deploy(ok=(1,))
        assert (done["status"], done["errorCode"]) == ("failed", code), done
        assert (stack.containers(), stack.answers()) == (before, ("one", "site one"))
    world.publish({"compose.yaml": COMPOSE, "web/version.txt": "two\n"})
    stack.engine.pause(True)
    try:
        done = world.deploy(ok=(1,))
        assert (done["status"], done["errorCode"]) == ("failed", "no-docker"), done
    finally:
        stack.engine.pause(False)
    assert world.json("status")["blocked"] == []
    assert world.deploy()["status"] == "deployed"
    assert stack.answers() == ("two", "site one")


def test_a_changed_mounted_file_restarts_who_sees_it_after_a_one_off_container_has_tried_it(stack: Stack) -> None:
    world, before = stack.world, stack.containers()
    world.publish({"proxy/site.conf": "site two\n"})
    assert world.deploy()["services"] == ["proxy"]
    after = stack.containers()
    assert (stack.answers(), after["web"], after["proxy"] != before["proxy"]) == (("one", "site two"), before["web"], True)
    world.publish({"proxy/site.conf": "nonsense\n"})
    done = world.deploy(ok=(1,))
    assert (done["status"], "validation of proxy" in done["errorSummary"]) == ("rolled_back", True), done
    assert stack.containers() == after, "the one that runs was not even restarted"
    assert world.text(f"{stack.name}/proxy/site.conf") == "site two\n"


def test_a_container_with_a_stale_image_is_made_anew_by_the_next_tick(stack: Stack, engine: DockerHost) -> None:
    world, before = stack.world, stack.containers()
    context = engine.folder / "box"
    dockerfile = (context / "Dockerfile").read_text()
    try:
        (context / "Dockerfile").write_text(dockerfile + "LABEL newer=yes\n")
        engine.docker("build", "--quiet", "--tag", BOX, str(context))
        done = world.json("converge")
        assert (done["status"], done["services"]) == ("deployed", ["proxy"])
        assert world.json("converge")["code"] == "equal"
        after = stack.containers()
        assert (after["proxy"] != before["proxy"], after["web"] == before["web"]) == (True, True)
        assert world.deploy()["status"] == "unchanged"
    finally:
        (context / "Dockerfile").write_text(dockerfile)
        engine.docker("build", "--quiet", "--tag", BOX, str(context))


def test_actions_of_a_stack_run_in_order_and_a_rebuild_without_cache_leaves_what_was_kept(stack: Stack) -> None:
    world = stack.world
    actions = f"""
[[actions]]
paths = ["compose.yaml"]
service = "proxy"
on_change = "recreate"
validate = ["test", "-s", "/etc/site.conf"]
wait = "for i in $(seq 50); do busybox wget -qO- http://127.0.0.1:{stack.proxy}/ && exit; sleep .05; done; exit 1"

[[actions]]
paths = ["compose.yaml"]
run = "busybox wget -qO- http://127.0.0.1:{stack.proxy}/ > {world.root}/seen"

[[actions]]
paths = ["base"]
service = "web"
on_change = "rebuild"
"""
    before = stack.containers()
    told = (world.clone / "homeport.toml").read_text().replace("keep = 2", "keep = 5")
    world.write({"homeport.toml": told + actions})
    dockerfile = DOCKERFILE + 'RUN ["/bin/sh", "-c", "cat /proc/uptime > /www/built"]\n'
    host = COMPOSE.replace("build: ./web", "build: {context: ./web, network: host}")
    sha = world.publish({"compose.yaml": host, "base": "1\n", "web/Dockerfile": dockerfile})
    lines = world.homeport("--json", "deploy").lines
    assert lines[-1]["status"] == "deployed"
    after = stack.containers()
    assert (after["proxy"] != before["proxy"], (world.root / "seen").read_text()) == (True, "site one\n")
    restarts = [e["service"] for e in lines if e["type"] == "deploy.restart.done"]
    assert sorted(restarts) == ["proxy", "web"], "each of them once"
    built = [world.get(stack.web, "/built")]
    for base in ("2\n", "1\n"):
        world.publish({"base": base})
        assert world.deploy()["status"] == "deployed"
        built.append(world.get(stack.web, "/built"))
    assert len(set(built)) == 3, "each time without the cache"
    world.publish({"README.md": "words\n"})
    assert world.deploy()["services"] == []
    world.homeport("rollback", sha)
    assert world.get(stack.web, "/built") == built[0], "the image of then, though the same files were built anew"
