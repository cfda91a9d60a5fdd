"""Reasons not to go on that follow from a plan alone."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from homeport.decide import edits
from homeport.model.edits import Edit
from homeport.model.live import PROJECT, Difference, SyncPlan
from homeport.model.paths import exact, printable
from homeport.model.plan import Refusal

SHOWN = 8
"""Paths that a message names; the refusal itself holds all of them."""


def refusals_of(plan: SyncPlan, environment: str, known: Sequence[Edit]) -> list[Refusal]:
    """The conflicts and the drift of one target, each as one refusal that names its paths and the next command.

    `known` are the living edits of this folder: what is on a branch already only waits to be merged.
    """
    found = []
    whose = "" if plan.target == PROJECT else f" {plan.target}"
    if plan.conflicts:
        odd = [d for d in plan.conflicts if d.oddity not in (None, "unreadable")]
        back = f"homeport -e {environment} discard {_one(plan.conflicts)}"
        how = (f"move what is no file away, in the live folder mv {_one(odd)} ELSEWHERE, then: {back}" if odd else
               f"then adopt the edit into git, or: {back}")
        found.append(Refusal(
            rule="conflict", service=plan.target, paths=_paths(plan.conflicts),
            message=f"the commit and somebody on the host both changed: {_named(plan.conflicts)}",
            next=f"homeport -e {environment} diff{whose}   ({how})",
        ))  # fmt: skip
    if plan.drift:
        foreign = [d for d in plan.drift if d.foreign]
        hint = ""
        if len(foreign) == len(plan.drift):
            hint = f"   (all of it is known to the branch: homeport -e {environment} record{whose} takes it as it is)"
        elif waiting := edits.waiting_at(known, plan.drift):
            hint = f"   (all of it is adopted: merge {', '.join(waiting)}, then: homeport -e {environment} deploy)"
        found.append(Refusal(
            rule="drift", service=plan.target, paths=_paths(plan.drift),
            message=f"{len(plan.drift)} path{'s' if len(plan.drift) > 1 else ''} edited on the host: {_named(plan.drift)}",
            next=f"homeport -e {environment} diff{whose}{hint}",
        ))  # fmt: skip
    return found


def mass_delete(total: int, deleted: int) -> bool:
    """More than half of a target's files, or all of a non-empty one (DESIGN section 4)."""
    return deleted * 2 > total > 0


def _paths(differences: Sequence[Difference]) -> tuple[str, ...]:
    return tuple(exact(d.path) for d in differences)


def _named(differences: Sequence[Difference]) -> str:
    some = ", ".join(printable(d.path) + (f" ({d.oddity})" if d.oddity else "") for d in differences[:SHOWN])
    return some if len(differences) <= SHOWN else f"{some} and {len(differences) - SHOWN} more"


def _one(differences: Sequence[Difference]) -> str:
    return shlex.quote(printable(differences[0].path)) if len(differences) == 1 else "PATH..."
