"""Which paths of an interrupted sync to put back: only those that hold what the sync wrote."""

from __future__ import annotations

from collections.abc import Sequence

from homeport.model.live import Scan, SyncPlan, SyncStep, TreeChange


def unwind(target: str, from_tree: str, changes: Sequence[TreeChange], scan: Scan) -> SyncPlan:
    """The plan that goes back to `from_tree`; `changes` are those of the interrupted sync.

    A path that holds neither side was edited by somebody in between: it is kept and stays drift.
    """
    there = {d.path: d.actual for d in scan.differences + scan.mutated}
    steps, kept = [], []
    for change in changes:
        if change.path not in there:
            continue
        if there[change.path] == change.after:
            steps.append(SyncStep(path=change.path, before=change.after, after=change.before))
        else:
            kept.append(change.path)
    return SyncPlan(target=target, from_tree=from_tree, to_tree=from_tree, steps=tuple(steps), kept=tuple(kept))
