"""Speaks the Model Context Protocol over standard input and output, with the SDK of the protocol's authors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from homeport import __version__
from homeport.mcp.calls import Outcome, carried_out
from homeport.mcp.tools import NAMED, TOOLS, Tool
from homeport.model.errors import HomeportError, UsageFault
from homeport.model.remote import Talk

Start = Callable[[Sequence[str]], AbstractContextManager[Talk]]
"""Runs `homeport WORDS` for the agent."""
INSTRUCTIONS = """\
homeport keeps a git repository and the servers that run it in step. Commits become running services with `deploy`;
what was edited on a server by hand is found by `drift`, never overwritten, and brought back to git by `adopt`.
Ask `status` first and `plan` before `deploy`. An answer with `exitCode` 3 is a refusal with a reason: do what `next`
says, or ask a person; an agent cannot confirm an exception. A deploy goes on when the client goes away."""


def serve(start: Start, before: Sequence[str], *, bound: bool, checkout: bool) -> None:
    """Answers until the input ends. `before` are the options in front of each verb; `bound`: they name the environment;
    `checkout`: the tools that need one are offered too."""
    anyio.run(_Service(start, before, bound=bound, checkout=checkout).run)


class _Service:
    def __init__(self, start: Start, before: Sequence[str], *, bound: bool, checkout: bool) -> None:
        self._start, self._before, self._bound = start, list(before), bound
        self._tools = [tool for tool in TOOLS if checkout or not tool.at_checkout]

    async def run(self) -> None:
        server: Server[Any] = Server("homeport", version=__version__, instructions=INSTRUCTIONS,
                                     on_list_tools=self._list, on_call_tool=self._call)  # fmt: skip
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())

    async def _list(self, _: ServerRequestContext[Any], __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[self._shown(tool) for tool in self._tools])

    def _shown(self, tool: Tool) -> types.Tool:
        hints = types.ToolAnnotations(read_only_hint=not tool.changes, destructive_hint=tool.destroys,
                                      open_world_hint=False)  # fmt: skip
        return types.Tool(name=tool.name, description=tool.says, input_schema=tool.schema(bound=self._bound),
                          annotations=hints)  # fmt: skip

    async def _call(self, asked: ServerRequestContext[Any], params: types.CallToolRequestParams) -> types.CallToolResult:
        """Any fault is an answer that the agent can read; whoever hangs up cancels nothing."""
        numbers = iter(range(1, 1 << 30))

        def tell(step: str) -> None:
            anyio.from_thread.run(asked.session.report_progress, float(next(numbers)), None, step)

        def work() -> Outcome:
            tool = NAMED.get(params.name)
            if tool not in self._tools:
                raise UsageFault(f"there is no tool {params.name[:80]}", where="tools/call", next="tools/list",
                                 code="tool-input")  # fmt: skip
            assert tool is not None
            words = tool.command(params.arguments or {}, self._before, bound=self._bound)
            with self._start(words) as talk:
                return carried_out(talk, tell, differs=tool.differs, plain=tool.plain)

        try:
            outcome = await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
        except HomeportError as fault:
            outcome = Outcome(said={"type": "error", "code": fault.code, "what": fault.what, "where": fault.where,
                                    "next": fault.next, "exitCode": fault.exit_code}, failed=True)  # fmt: skip
        return types.CallToolResult(content=[types.TextContent(type="text", text=outcome.text())],
                                    structured_content=outcome.said, is_error=outcome.failed)  # fmt: skip
