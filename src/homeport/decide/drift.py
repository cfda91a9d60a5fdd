"""The three-way table of DESIGN section 4, pure: recorded, wanted and actual make a plan, or reasons to refuse."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from msgspec.structs import replace

from homeport.model.config import OnDrift
from homeport.model.live import Difference, Entry, Scan, SyncPlan, SyncStep, TreeChange, Verdict
from homeport.model.paths import folders_above
from homeport.model.patterns import Matcher


def judge(recorded: Entry | None, wanted: Entry | None, actual: Entry | None) -> Verdict:
    """What one path is; None is absent. Sources: DESIGN section 4."""
    if actual == recorded:
        return "same" if wanted == recorded else "update"
    if actual == wanted:
        return "arrived"
    if wanted == recorded:
        if recorded is None:
            return "added"
        return "deleted_on_host" if actual is None else "hand_edit"
    return "in_the_way" if recorded is None else "conflict"


def reconcile(target: str, from_tree: str, to_tree: str, changes: Sequence[TreeChange], scan: Scan,
              obstacles: Mapping[str, Difference], on_drift: OnDrift,
              in_place: Matcher | None, accepted: Container[str] = (),
              landed: Container[str] = (), ours: Container[str] = ()) -> SyncPlan:  # fmt: skip
    """The plan that brings a live folder from `from_tree` to `to_tree`.

    `changes` are those between the two trees, `scan` what is not as recorded, `obstacles` what lies at paths
    that only the new tree has. A path with drift that the commit changes too is a conflict, whatever `on_drift` says,
    unless the drift is `landed`: then it is part of what the commit brings. What is `accepted` stays as it is. What is
    `ours` was brought by a sync that was cut short: it is in git, and nobody's edit; or it made way for that.
    """
    drifted = {d.path: d for d in scan.differences}
    mutated = {d.path: d for d in scan.mutated}
    plan = _Plan(in_place, {above for c in changes if c.after is not None for above in folders_above(c.path)})
    changed: set[str] = set()
    for change in changes:
        changed.add(change.path)
        there = drifted.get(change.path) or mutated.get(change.path) or obstacles.get(change.path)
        plan.change(change, there, mutable=change.path in mutated, landed=change.path in landed,
                    ours=change.path in ours)  # fmt: skip
    for difference in scan.differences:
        if difference.path not in changed and difference.path in ours:
            plan.step(difference.path, difference.actual, difference.recorded)
        elif difference.path not in changed:
            plan.drift(difference, "keep" if difference.path in accepted else on_drift)
    for difference in scan.mutated:
        if difference.path not in changed:
            plan.reset(difference)
    return SyncPlan(target=target, from_tree=from_tree, to_tree=to_tree, steps=tuple(plan.steps),
                    arrived=tuple(plan.arrived), kept=tuple(plan.kept), conflicts=tuple(plan.conflicts),
                    drift=tuple(plan.refused))  # fmt: skip


class _Plan:
    def __init__(self, in_place: Matcher | None, folders: set[str]) -> None:
        self._in_place = in_place
        self._folders = folders
        """Folders that the commit brings files into."""
        self.steps: list[SyncStep] = []
        self.arrived: list[str] = []
        self.kept: list[str] = []
        self.conflicts: list[Difference] = []
        self.refused: list[Difference] = []

    def change(self, change: TreeChange, there: Difference | None, *, mutable: bool, landed: bool, ours: bool) -> None:
        """A path that the commit changes."""
        if there is None:
            self.step(change.path, change.before, change.after)
        elif ours and there.oddity in ("directory", "file in the way"):
            if change.after is None:
                self.arrived.append(change.path)
            else:
                self.step(change.path, None, change.after)
        elif there.oddity is not None:
            made_way = there.state == "deleted" or (there.oddity == "directory" and change.path in self._folders)
            if there.actual is None and change.after is None and made_way:
                self.arrived.append(change.path)
            else:
                self._conflict(there)
        elif mutable and there.actual != change.after:
            self.step(change.path, there.actual, change.after, rescue="mutable")
        elif judge(change.before, change.after, there.actual) == "arrived":
            self.arrived.append(change.path)
        elif ours:
            self.step(change.path, there.actual, change.after)
        elif landed:
            self.step(change.path, there.actual, change.after, rescue="adopted")
        else:
            self._conflict(there)

    def drift(self, difference: Difference, on_drift: OnDrift) -> None:
        """A path that differs and that the commit leaves alone."""
        if on_drift == "keep":
            self.kept.append(difference.path)
        elif on_drift == "refuse" or difference.oddity is not None:
            self.refused.append(difference)
        elif difference.recorded is None:
            # only what git tracked is ever deleted (DESIGN section 4): a file added by hand stays
            self.kept.append(difference.path)
        else:
            self.step(difference.path, difference.actual, difference.recorded, rescue="discarded")

    def reset(self, difference: Difference) -> None:
        """A program rewrote a path under `mutable`: it goes back to what is recorded."""
        if difference.oddity is not None:
            self._conflict(difference)
        else:
            self.step(difference.path, difference.actual, difference.recorded, rescue="mutable")

    def _conflict(self, difference: Difference) -> None:
        self.conflicts.append(replace(difference, state="conflict"))

    def step(self, path: str, before: Entry | None, after: Entry | None, rescue: str | None = None) -> None:
        in_place = self._in_place is not None and self._in_place.match(path)
        rescue = rescue if before is not None else None
        self.steps.append(SyncStep(path=path, before=before, after=after, in_place=in_place, rescue=rescue))
