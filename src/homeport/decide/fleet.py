"""Several hosts of one environment: which of them are dealt with at the same time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

Strategy = Literal["rolling", "canary", "all"]
Host = TypeVar("Host")
IN_WAVES = frozenset({"deploy", "rollback", "rebuild", "restart"})
"""Verbs that the strategy is for; any other goes from host to host."""


def waves(hosts: Sequence[Host], strategy: Strategy, verb: str, *, migrates: bool) -> list[list[Host]]:
    """The hosts in the order of their turns; those of one turn work side by side.

    `rolling`: one after the other. `canary`: the first alone, then all the others. `all`: everybody, except that the
    first goes ahead where it `migrates`: the others would serve a database that is not ready for them.
    """
    ahead = len(hosts) if strategy == "rolling" or verb not in IN_WAVES else int(strategy == "canary" or migrates)
    turns = [[host] for host in hosts[:ahead]]
    return [*turns, list(hosts[ahead:])] if hosts[ahead:] else turns
