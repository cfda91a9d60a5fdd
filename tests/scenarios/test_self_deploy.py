"""C1 C2 C3 C4 C6 C8: a platform that deploys itself: four services of a package workspace, an agent's token."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.conftest import find_pnpm
from tests.daemon.rig import Daemon
from tests.supervisor_rig import started_again, status_at, working_in
from tests.world import PROGRAM, World, eventually

NAMES = ("edge", "back", "front", "worker")
TOGETHER = ("back", "front")
"""Those of scope `platform`, whose build is one command for both."""
SERVER = """\
const version = require("fs").readFileSync(__dirname + "/dist/version.txt", "utf8");
require("http").createServer((request, response) => response.end(version + " " + process.pid))
  .listen(Number(process.env.PORT), "127.0.0.1");
"""
BUILD = """\
const fs = require("fs");
const version = fs.readFileSync("version.txt", "utf8").trim();
const word = fs.existsSync("node_modules/words") ? require("words") : "";
console.log("building " + process.env.npm_package_name + " " + version);
const end = () => {
  if (fs.existsSync(process.env.HOLD)) return setTimeout(end, 20);
  if (version === "broken") { console.error("error TS2304: Cannot find name 'oops'."); process.exit(2); }
  fs.mkdirSync("dist", { recursive: true });
  fs.writeFileSync("dist/version.txt", version + word);
};
end();
"""
LOCK = """\
lockfileVersion: '9.0'

settings:
  autoInstallPeers: true
  excludeLinksFromLockfile: false

importers:

  .: {}

  back:
    dependencies:
      words:
        specifier: workspace:*
        version: link:../shared/words

  edge: {}

  front:
    dependencies:
      words:
        specifier: workspace:*
        version: link:../shared/words

  shared/words: {}

  worker: {}
"""
TOGETHER_BUILD = "pnpm install --offline --frozen-lockfile && pnpm --filter back --filter front run build"


class Platform(World):
    """The workspace, its supervisor under a keeper, and the daemon on TCP."""

    def make(self) -> None:
        folders = list(dict.fromkeys(os.path.dirname(shutil.which(program) or find_pnpm()) for program in ("node", "pnpm")))
        self.ports = {name: self.free_port() for name in NAMES}
        text = f'[scopes.platform]\nservices = ["back", "front"]\nbuild = "{TOGETHER_BUILD}"\n\n'
        text += '[scopes.edges]\nservices = ["edge", "worker"]\n\n'
        files: dict[str, str | None] = {
            "package.json": json.dumps({"private": True}), ".gitignore": "dist/\nnode_modules/\n", "pnpm-lock.yaml": LOCK,
            "pnpm-workspace.yaml": f"packages: {json.dumps([*NAMES, 'shared/*'])}\n", "README.md": "a platform\n",
            "shared/words/package.json": json.dumps({"name": "words", "version": "1.0.0", "main": "index.js"}),
            "shared/words/index.js": 'module.exports = "";\n',
        }  # fmt: skip
        for name in NAMES:
            together = name in TOGETHER
            uses, own = ('uses = ["shared/words"]\n', "") if together else ("", 'run = ["node", "build.js"], ')
            text += (
                f'[services.{name}]\nsource = "{name}"\ntarget = "{{live}}/{name}"\nruntime = "supervisor"\n'
                f'command = ["node", "server.js"]\npath = {json.dumps(folders)}\nlisten = "127.0.0.1:{self.ports[name]}"\n'
                f'env = {{ PORT = "{self.ports[name]}" }}\n{uses}build = {{ {own}outputs = ["dist"], '
                f'env = {{ HOLD = "{self.root}/hold" }} }}\n'
                f'checks = [{{ http = "http://127.0.0.1:{self.ports[name]}/", within = "20s", every = "50ms" }}]\n\n'
            )
            package: dict[str, object] = {"name": name, "version": "1.0.0", "scripts": {"build": "node build.js"}}
            if together:
                package["dependencies"] = {"words": "workspace:*"}
            files |= {f"{name}/package.json": json.dumps(package), f"{name}/server.js": SERVER, f"{name}/build.js": BUILD,
                      f"{name}/version.txt": "one\n"}  # fmt: skip
        self.project(text, files, "converge = 0  # nobody but the test asks for deploys")
        self.homeport("history")
        self.port = self.free_port()
        with open(self.host_file, "a") as host:
            host.write(f'[listen]\naddress = "127.0.0.1:{self.port}"\n')
        self.keeper = started_again([str(PROGRAM), "supervise"], self.clone, self.env, self.root / "supervisor.out")
        self.daemon = Daemon(self).start()
        eventually(lambda: self.get(self.port, "/healthz")[0] == 200, "the platform's API answers")
        eventually(lambda: self.supervisor() > 0, "the supervisor runs")

    @property
    def hold(self) -> Path:
        return self.root / "hold"

    def supervisor(self) -> int:
        """Its process id as it says itself (its keeper has its name too); 0 while it does not answer."""
        said = status_at(self.state / "shop/production/supervisor.sock")
        return int(said["pid"]) if said is not None else 0

    def versions(self) -> list[str]:
        return [self.get(port)[1].split(" ")[0] for port in self.ports.values()]

    def pid_of(self, name: str) -> int:
        return int(self.get(self.ports[name])[1].split(" ")[1])

    def building(self) -> bool:
        journals = sorted((self.state / "shop/production/journal").glob("*.jsonl"))
        raw = journals[-1].read_bytes() if journals else b""
        return b"building " in raw and b'{"type":"deploy.done"' not in raw

    def end(self) -> None:
        self.hold.unlink(missing_ok=True)
        self.daemon.close()
        os.killpg(self.keeper.pid, signal.SIGKILL)
        self.keeper.wait()
        self.close()
        for pid in working_in(self.live):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def told(client: ClientConnection, deploy: str) -> list[dict[str, Any]]:
    """Every event to the end of that deploy, as a WebSocket client hears them."""
    found: list[dict[str, Any]] = []
    while not any((event["type"], event["deployId"]) == ("deploy.done", deploy) for event in found):
        lines = [json.loads(line) for line in client.recv(30).splitlines()]
        found += [event for event in lines if event["type"] != "events.offset"]
    return found


def named(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    made = Platform(tmp_path)
    made.make()
    yield made
    made.end()


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    """Closes what a scenario opened."""
    with ExitStack() as stack:
        yield stack


def test_the_platform_deploys_itself(platform: Platform, ends: ExitStack) -> None:
    daemon = platform.daemon
    token = platform.json("token", "create", "agent", "--right", "read", "--right", "deploy:platform")["token"]
    shown = {"Authorization": f"Bearer {token}"}
    agent = ends.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{platform.port}", headers=shown, timeout=90))
    events = f"ws://127.0.0.1:{platform.port}/api/v1/events"
    ada, bob = (ends.enter_context(connect(f"{events}?user={user}", additional_headers=shown)) for user in ("ada", "bob"))

    # everything, asked for on the socket by the platform's own people
    said = daemon.deploy(scope="all", requestedBy="__self__").json()
    assert (said["status"], sorted(said["services"])) == ("deployed", sorted(NAMES)), said
    assert platform.versions() == ["one"] * 4
    edge = platform.pid_of("edge")

    # the agent reaches its scope only, and twenty callers are one build
    assert {agent.post("/api/v1/self/deploy", json={"scope": scope}).status_code for scope in ("all", "edges")} == {403}
    word: dict[str, str | None] = {"shared/words/index.js": 'module.exports = "!";\n'}
    platform.publish({f"{name}/version.txt": "two\n" for name in NAMES if name != "front"} | word)
    platform.hold.touch()
    wanted = {"scope": "platform", "requestedBy": "ada", "sessionId": "s-1"}
    calls = [daemon.pool.submit(agent.post, "/api/v1/self/deploy", json=wanted | {"requestId": f"r{n}"}) for n in range(20)]
    asked = [f"/api/v1/deploys?requestId=r{n}" for n in range(20)]
    eventually(lambda: all(len(daemon.ask("GET", of).json()["deploys"]) == 1 for of in asked), "all have asked")
    eventually(platform.building, "it builds")
    waiting = daemon.deploying(scope="all", requestedBy="ada", requestId="later")
    eventually(lambda: daemon.ask("GET", "/api/v1/deploys?requestId=later").json()["deploys"], "another one waits")
    later = daemon.ask("GET", "/api/v1/deploys?requestId=later").json()["deploys"][0]["id"]
    assert daemon.ask("POST", f"/api/v1/deploys/{later}/cancel").status_code == 202
    assert waiting.result(30).json()["status"] == "cancelled"
    heard = told(ada, later)
    assert next(event["type"] for event in heard if event["deployId"] == later) == "deploy.cancelled", "while one builds"
    platform.hold.unlink()
    answers = [call.result(90) for call in calls]
    assert {answer.status_code for answer in answers} == {200}, answers[0].text
    assert len({answer.text for answer in answers}) == 1
    assert platform.versions() == ["one", "two!", "one!", "one"], "both are made from the shared package"
    assert platform.pid_of("edge") == edge, "what is outside of the scope was not touched"
    said = answers[0].json()
    assert said["logTail"].count("building front one") == 1 and "building back two" in said["logTail"]
    heard = [event for event in heard + told(ada, said["deployId"]) if event["deployId"] != later]
    assert {event["deployId"] for event in heard} == {said["deployId"]} and heard[0]["type"] == "deploy.start"
    assert [heard[0][key] for key in ("mode", "targets", "sessionId")] == ["commit", ["back", "front"], "s-1"]
    lines = [event["line"] for event in named(heard, "deploy.log") if event["stream"] == "stdout"]
    assert [line for line in said["logTail"].splitlines() if line in lines] == lines, "each line, in order, once"
    ended = {event["service"]: event for event in named(heard, "deploy.restart.done")}
    assert {event["service"] for event in named(heard, "deploy.restart.start")} == set(ended) == set(TOGETHER)
    assert all(event["pid"] == platform.pid_of(name) and event["durationMs"] >= 0 for name, event in ended.items())
    assert {key: heard[-1][key] for key in ("ok", "exitCode", "durationMs", "errorSummary")} == {
        key: said[key] for key in ("ok", "exitCode", "durationMs", "errorSummary")
    }  # fmt: skip
    with pytest.raises(TimeoutError):
        bob.recv(0)  # what ada asked for is told to nobody else

    # one build for both, and only what it changed is put live and restarted
    front, back = platform.pid_of("front"), platform.pid_of("back")
    platform.publish({"back/version.txt": "three\n", "README.md": "better told\n"})
    said = agent.post("/api/v1/self/deploy", json={"scope": "platform"}).json()
    assert (said["status"], said["services"]) == ("deployed", ["back"]), said
    assert platform.pid_of("front") == front and platform.pid_of("back") != back
    platform.publish({"README.md": "still better told\n"})
    assert agent.post("/api/v1/self/deploy", json={"scope": "platform"}).json()["status"] == "unchanged"
    assert platform.versions() == ["one", "three!", "one!", "one"]

    # a build that fails says why and leaves the running version alone
    platform.publish({"front/version.txt": "broken\n"})
    failed = agent.post("/api/v1/self/deploy", json={"scope": "platform"})
    body = failed.json()
    assert (failed.status_code, body["status"], body["exitCode"]) == (500, "failed", 1)
    assert "Cannot find name 'oops'" in body["logTail"] and "scope platform" in body["errorSummary"]
    assert platform.versions() == ["one", "three!", "one!", "one"]

    # the agent edits in place and starts what it edited
    (platform.live / "front/version.txt").write_text("edited\n")
    live = agent.post("/api/v1/self/deploy", json={"scope": "platform", "mode": "live", "requestedBy": "__self__"})
    assert (live.status_code, live.json()["status"]) == (200, "deployed"), live.text
    assert platform.versions() == ["one", "three!", "edited!", "one"]

    # the log and the last row of each are kept, for the command line and for the API
    deploy = body["deployId"]
    row = daemon.ask("GET", f"/api/v1/deploys/{deploy}").json()
    shown_row = platform.json("show", deploy)
    assert row["status"] == shown_row["status"] == "failed" and row["errorSummary"] == body["errorSummary"]
    log = daemon.ask("GET", f"/api/v1/deploys/{deploy}/log").text
    kept = [event["line"] for event in map(json.loads, log.splitlines()) if event["type"] == "deploy.log"]
    printed = platform.homeport("logs", deploy).stdout
    assert any("Cannot find name 'oops'" in line for line in kept) and all(line in printed for line in kept)


def test_daemon_and_supervisor_end_in_the_middle_and_the_outcome_is_still_true(platform: Platform) -> None:
    """Whoever asks again with the request id is told what became of it."""
    daemon = platform.daemon
    assert daemon.deploy(scope="all").json()["status"] == "deployed"
    platform.publish({f"{name}/version.txt": "two\n" for name in NAMES})
    platform.hold.touch()
    caller = daemon.deploying(scope="all", requestId="release-2")
    eventually(platform.building, "it builds")
    before = platform.supervisor()
    os.kill(before, signal.SIGKILL)
    daemon.kill()
    with pytest.raises(httpx.HTTPError):
        caller.result(30)
    platform.hold.unlink()
    daemon.start()
    said = daemon.deploy(scope="all", requestId="release-2").json()
    assert (said["status"], said["ok"]) == ("deployed", True), said
    assert platform.versions() == ["two"] * 4 and platform.supervisor() not in (0, before)
    rows = daemon.ask("GET", "/api/v1/deploys?requestId=release-2").json()["deploys"]
    assert [row["id"] for row in rows] == [said["deployId"]], "exactly one outcome"

    # the supervisor itself, asked for by name: its children run on, and the deploy that asked ends truly
    supervisor, serving = platform.supervisor(), [platform.pid_of(name) for name in NAMES]
    assert daemon.deploy(scope="platform", itself=True).status_code == 400
    platform.publish({"edge/version.txt": "three\n"})
    said = daemon.deploy(scope="all", itself=True).json()
    assert (said["status"], said["services"]) == ("deployed", ["edge"]), said
    assert platform.supervisor() not in (0, supervisor) and platform.versions() == ["three", "two", "two", "two"]
    assert [platform.pid_of(name) for name in NAMES][1:] == serving[1:]
    stages = [row["stage"] for row in daemon.ask("GET", f"/api/v1/deploys/{said['deployId']}").json()["stages"]]
    assert "restarting-self" in stages and stages[-1] == "stamp"
