"""E10: an agent plans, deploys, reads drift and adopts by the tools of `homeport mcp`, and does what its token allows.

The client is that of the protocol's authors, over the standard input and output of the installed program.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters

from tests.world import PROGRAM, World, eventually

SERVICES = """
[services.api]
source = "api"
target = "{live}/api"
build = { run = ["sh", "-c", "echo building; while test -e hold; do sleep 0.05; done; cp in.txt out.txt"], outputs = ["out.txt"] }

[services.web]
source = "web"
target = "{live}/web"

[scopes.front]
services = ["web"]

[[rules]]
id = "edits-are-somebodys"
action = "discard"
match = "api/**"
effect = "confirm"
because = "a person says what may go"
"""  # noqa: E501
FILES: dict[str, str | None] = {"api/in.txt": "one\n", "api/.gitignore": "out.txt\n", "web/index.html": "one\n"}


class Answer:
    """What a tool answered."""

    def __init__(self, result: Any, steps: list[str]) -> None:
        self.failed: bool = result.is_error
        self.said: dict[str, Any] = result.structured_content
        self.steps = steps
        self.text: str = result.content[0].text
        assert json.loads(self.text) == self.said, "read and parsed are the same"


class Agent:
    def __init__(self, client: Client) -> None:
        self.client = client

    async def __call__(self, tool: str, **given: object) -> Answer:
        steps: list[str] = []

        async def told(_: float, __: float | None, step: str | None) -> None:
            steps.append(step or "")

        return Answer(await self.client.call_tool(tool, given, progress_callback=told), steps)


def with_agent(world: World, *words: str, do: Callable[[Agent], Awaitable[None]]) -> None:
    """Starts `homeport WORDS` as an agent's host does, and lets `do` use its tools."""
    server = StdioServerParameters(command=str(PROGRAM), args=[*words], env=world.env, cwd=str(world.clone))

    async def play() -> None:
        async with Client(server, read_timeout_seconds=60) as client:
            await do(Agent(client))

    anyio.run(play)


def test_an_agent_plans_deploys_reads_drift_and_adopts_by_tools(world: World) -> None:
    world.project(SERVICES, FILES)
    edited = world.live / "web/index.html"

    async def work(ask: Agent) -> None:
        tools = {tool.name: tool for tool in (await ask.client.list_tools()).tools}
        assert {"status", "plan", "deploy", "drift", "adopt", "try", "rescue_list"} <= tools.keys()
        assert tools["plan"].annotations is not None and tools["plan"].annotations.read_only_hint
        assert tools["rollback"].annotations is not None and tools["rollback"].annotations.destructive_hint
        assert tools["restart"].input_schema["required"] == ["services"]

        planned = await ask("plan")
        assert [service["service"] for service in planned.said["services"]] == ["api", "web"]
        done = await ask("deploy", request_id="agent-1")
        assert (done.failed, done.said["status"], done.said["logTail"]) == (False, "deployed", "building")
        assert any(step.startswith("build done") for step in done.steps), done.steps
        again = await ask("deploy", request_id="agent-1")
        assert again.said["deployId"] == done.said["deployId"], "the same request is the same deploy"

        edited.write_text("by hand\n")
        world.publish({"web/index.html": "two\n"})
        drift = await ask("drift")
        assert not drift.failed, drift.said
        assert [[one["path"] for one in service["paths"]] for service in drift.said["services"]] == [[], ["index.html"]]
        assert "+by hand" in (await ask("diff", service="web", paths=["index.html"])).said["diff"]
        refused = await ask("deploy")
        assert refused.failed and refused.said["exitCode"] == 3 and edited.read_text() == "by hand\n"

        world.git("reset", "-q", "--hard", "HEAD~1")
        world.git("push", "-q", "-f", "origin", "HEAD:main")
        adopted = await ask("adopt", service="web", branch="fix/words", message="--amend is no option here")
        assert not adopted.failed, adopted.said
        assert world.git("log", "-1", "--format=%s", "fix/words", cwd=world.origin) == "--amend is no option here"
        assert world.git("show", "fix/words:web/index.html", cwd=world.origin) == "by hand"
        assert world.git("rev-list", "--count", "main..fix/words", cwd=world.origin) == "1"

        (world.live / "api/in.txt").write_text("by hand\n")
        asked = await ask("discard", paths=["api/in.txt"])
        assert asked.failed and asked.said["exitCode"] == 3 and "agent" in asked.text, asked.said
        assert (await ask("logs", of=done.said["deployId"])).said["text"].count("building") == 1

    with_agent(world, "mcp", do=work)
    assert {row["actor"] for row in world.json("audit")["audit"]} == {"agent"}


def test_a_token_bounds_what_the_tools_do(world: World) -> None:
    world.project(SERVICES, FILES)
    world.deploy()
    world.json("token", "create", "builder", "--right", "read", "--right", "deploy:front")

    async def work(ask: Agent) -> None:
        assert not {"try", "check"} & {tool.name for tool in (await ask.client.list_tools()).tools}
        assert not (await ask("status")).failed
        refused = await ask("deploy", services=["api"])
        assert refused.failed and refused.said["code"] == "no-right" and "api" in refused.said["what"]
        assert (await ask("deploy")).said["code"] == "no-right", "everything is more than its scope"
        assert (await ask("adopt")).said["code"] == "no-right"
        world.publish({"web/index.html": "two\n"})
        assert (await ask("deploy", services=["web"])).said["status"] == "deployed"
        world.json("token", "revoke", "builder")
        assert (await ask("status")).said["code"] == "no-token"

    with_agent(world, "-p", "shop", "-e", "production", "mcp", "--token", "builder", do=work)
    assert world.text("web/index.html") == "two\n"
    assert [row["requestedBy"] for row in world.json("history")["deploys"]][:1] == ["builder"]
    said = world.homeport("mcp", "--token", "nobody", ok=(3,))
    assert "the token nobody is not known here" in said.stderr


def test_a_client_that_hangs_up_cancels_nothing(world: World) -> None:
    world.project(SERVICES, {**FILES, "api/hold": "\n"})

    async def work(ask: Agent) -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def begun(_: float, __: float | None, step: str | None) -> None:
                    if step == "build start":
                        scope.cancel()

                scope.deadline = float("inf")
                group.start_soon(lambda: ask.client.call_tool("deploy", {}, progress_callback=begun))

    with_agent(world, "mcp", do=work)
    held: list[Path] = []
    eventually(lambda: held.extend(world.live.glob(".homeport-api/**/hold")) or held, "the build is at work")
    held[0].unlink()
    eventually(lambda: world.json("history")["deploys"][0]["status"] == "deployed", "the deploy ended by itself")
    assert world.text("api/out.txt") == "one\n"


def test_what_no_tool_takes_is_told_and_nothing_else_breaks(world: World) -> None:
    world.project(SERVICES, FILES)

    async def work(ask: Agent) -> None:
        for tool, given in (
            ("shell", {}), ("status", {"colour": "red"}), ("deploy", {"services": "web"}), ("restart", {}),
            ("restart", {"services": []}), ("history", {"count": 0}), ("deploy", {"ref": 7}),
        ):  # fmt: skip
            answer = await ask(tool, **given)
            assert answer.failed and answer.said["code"] == "tool-input", (tool, given, answer.said)
        for given in ({"ref": "--upload-pack=touch x"}, {"services": ["--discard-drift"]}, {"ref": "$(touch x)"}):
            answer = await ask("deploy", **given)
            assert answer.failed and answer.said["exitCode"] in (2, 3), answer.said
        assert (await ask("status")).said["project"] == "shop"

    with_agent(world, "mcp", do=work)
    assert not (world.clone / "x").exists() and not (world.live / "web").exists()


def test_without_the_library_the_way_to_it_is_told(world: World) -> None:
    world.project(SERVICES, FILES)
    (world.root / "without/mcp_types").mkdir(parents=True)
    (world.root / "without/mcp_types/__init__.py").write_text('raise ModuleNotFoundError("none", name="mcp_types")\n')
    said = world.homeport("mcp", ok=(1,), env={"PYTHONPATH": str(world.root / "without")})
    assert 'pip install "homeport[mcp]"' in said.stderr


def test_junk_on_the_line_is_answered_or_passed_over(world: World) -> None:
    world.project(SERVICES, FILES)
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
    lines = [
        b"not json", b'{"jsonrpc":"2.0"', b"\xff\xfe", b"[]", b"{" * 20_000,
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}).encode(),
        b'{"jsonrpc":"2.0","method":"notifications/initialized"}',
        b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"status","arguments":{}}}',
    ]  # fmt: skip
    server = subprocess.Popen([str(PROGRAM), "-e", "production", "mcp"], cwd=world.clone, env=world.env,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(b"\n".join(lines) + b"\n")
    server.stdin.flush()
    answers = {}
    while 2 not in answers:
        said = json.loads(server.stdout.readline())
        answers[said.get("id")] = said
    assert answers[2]["result"]["structuredContent"]["project"] == "shop"
    _, errors = server.communicate(timeout=30)
    assert server.returncode == 0 and b"Traceback" not in errors
