"""The three-way table, judged by a second one written in plain dictionaries (tests/targets/table.py)."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeport.decide.drift import judge, reconcile
from homeport.model.live import Difference, DriftState, Entry, Scan, SyncPlan, TreeChange
from homeport.model.patterns import Matcher
from tests.targets.table import (
    IGNORED,
    IN_PLACE,
    MUTABLE,
    NAMES,
    PROTECTED,
    Tree,
    below,
    file_above,
    outcome,
    whole,
)

CONTENTS = ("one", "two", "three", "one+x")
"""`+x` stands for the executable bit: a change of mode alone is a change."""


def trees(names: tuple[str, ...] = NAMES) -> st.SearchStrategy[Tree]:
    return st.dictionaries(st.sampled_from(names), st.sampled_from(CONTENTS), max_size=6).map(made_whole)


def made_whole(tree: Tree) -> Tree:
    """Without the paths that another one of them needs to be a folder."""
    return {path: content for path, content in tree.items() if not below(tree, path)}


@st.composite
def three(draw: st.DrawFn) -> tuple[Tree, Tree, Tree]:
    """R, W and A, mostly alike, as they are in life."""
    tracked = tuple(name for name in NAMES if name not in PROTECTED)
    r = draw(trees(tracked))
    w = made_whole({**r, **draw(trees(tracked))})
    a = made_whole({**r, **draw(trees())})
    for tree in (w, a):
        for path in draw(st.lists(st.sampled_from(NAMES), max_size=3)):
            tree.pop(path, None)
    return r, w, a


def entry(content: str | None) -> Entry | None:
    return None if content is None else Entry("100755" if content.endswith("+x") else "100644", content)


def seen(r: Tree, a: Tree) -> list[Difference]:
    """What a look at the folder finds: differences from R that nothing hides."""
    found = []
    for path in sorted({*r, *a}):
        if path in PROTECTED or (path in IGNORED and path not in r):
            continue
        state: DriftState = "modified"
        oddity = None
        if path not in r:
            state = "added"
        elif below(a, path):
            state, oddity = "type_changed", "directory"
        elif file_above(a, path) is not None:
            state, oddity = "deleted", "file in the way"
        elif path not in a:
            state = "deleted"
        elif a[path] == r[path]:
            continue
        found.append(Difference(path=path, state=state, recorded=entry(r.get(path)), actual=entry(a.get(path)),
                                oddity=oddity))  # fmt: skip
    return found


def in_the_way(r: Tree, w: Tree, a: Tree) -> dict[str, Difference]:
    """What lies at paths that only W has; nothing is hidden here."""
    going = {path for path in r if path not in w}
    found = {}
    for path in w:
        higher = file_above(a, path)
        if path in r:
            continue
        if path in a:
            found[path] = Difference(path=path, state="added", actual=entry(a[path]))
        elif set(below(a, path)) - going:
            found[path] = Difference(path=path, state="added", oddity="directory")
        elif higher is not None and higher not in going:
            found[path] = Difference(path=path, state="added", oddity="file in the way")
    return found


OnDrift = Literal["refuse", "keep", "discard"]


def planned(r: Tree, w: Tree, a: Tree, on_drift: OnDrift) -> SyncPlan:
    differences = seen(r, a)
    scan = Scan(
        target="api", recorded_tree="R",
        differences=tuple(d for d in differences if d.path not in MUTABLE),
        mutated=tuple(d for d in differences if d.path in MUTABLE and d.state != "added"),
    )  # fmt: skip
    changes = [TreeChange(path, entry(r.get(path)), entry(w.get(path)))
               for path in sorted({*r, *w}) if r.get(path) != w.get(path)]  # fmt: skip
    return reconcile("api", "R", "W", changes, scan, in_the_way(r, w, a), on_drift, Matcher(IN_PLACE))


def carried_out(plan: SyncPlan, a: Tree) -> Tree:
    after = dict(a)
    for step in plan.steps:
        assert entry(a.get(step.path)) == step.before, f"{step.path} is not what the plan takes it for"
        if step.after is None:
            after.pop(step.path, None)
        else:
            after[step.path] = step.after.oid
    return after


ON_DRIFT = st.sampled_from(["refuse", "keep", "discard"])
MANY = settings(max_examples=150, deadline=None)


@MANY
@given(three(), ON_DRIFT)
def test_every_plan_does_what_the_table_says(rwa: tuple[Tree, Tree, Tree], on_drift: OnDrift) -> None:
    r, w, a = rwa
    plan, expected = planned(r, w, a, on_drift), outcome(r, w, a, on_drift)
    refused = {d.path: "conflict" for d in plan.conflicts} | {d.path: "drift" for d in plan.drift}
    assert refused == expected.refused
    if not refused:
        after = carried_out(plan, a)
        assert after == expected.after
        assert whole(after)


@MANY
@given(three(), ON_DRIFT)
def test_no_step_loses_bytes_that_git_does_not_have(rwa: tuple[Tree, Tree, Tree], on_drift: OnDrift) -> None:
    r, w, a = rwa
    for step in planned(r, w, a, on_drift).steps:
        if step.before is not None and step.before != entry(r.get(step.path)):
            assert step.rescue, f"{step.path} would be replaced without a rescue"


@MANY
@given(three(), ON_DRIFT)
def test_a_conflict_is_never_also_a_step(rwa: tuple[Tree, Tree, Tree], on_drift: OnDrift) -> None:
    plan = planned(*rwa, on_drift)
    said = [d.path for d in (*plan.conflicts, *plan.drift)] + [*plan.kept, *plan.arrived, *(s.path for s in plan.steps)]
    assert len(said) == len(set(said)), "a path was judged twice"
    assert all(d.state == "conflict" for d in plan.conflicts)


@MANY
@given(three(), ON_DRIFT)
def test_only_tracked_paths_are_deleted_and_protected_ones_never_named(
    rwa: tuple[Tree, Tree, Tree], on_drift: OnDrift
) -> None:
    r, w, a = rwa
    plan = planned(r, w, a, on_drift)
    for step in plan.steps:
        assert step.path not in PROTECTED
        assert step.after is not None or step.path in r
        assert step.in_place == (step.path in IN_PLACE)


@MANY
@given(three())
def test_kept_edits_stay_byte_for_byte(rwa: tuple[Tree, Tree, Tree]) -> None:
    r, w, a = rwa
    plan = planned(r, w, a, "keep")
    assert not plan.drift
    if not plan.conflicts:
        after = carried_out(plan, a)
        assert all(after.get(path) == a.get(path) for path in plan.kept)


@MANY
@given(three())
def test_a_second_run_has_nothing_left_to_do(rwa: tuple[Tree, Tree, Tree]) -> None:
    r, w, a = rwa
    plan = planned(r, w, a, "keep")
    if not plan.conflicts:
        again = planned(w, w, carried_out(plan, a), "keep")
        assert not again.steps and not again.conflicts


@pytest.mark.parametrize(
    ("recorded", "wanted", "actual", "verdict"),
    [
        ("r", "r", "r", "same"),
        (None, None, None, "same"),
        ("r", "w", "r", "update"),
        ("r", None, "r", "update"),
        (None, "w", None, "update"),
        ("r", "r", "a", "hand_edit"),
        ("r", "r", "r+x", "hand_edit"),
        ("r", "r", None, "deleted_on_host"),
        ("r", "w", "w", "arrived"),
        ("r", None, None, "arrived"),
        (None, "w", "w", "arrived"),
        ("r", "w", "a", "conflict"),
        ("r", "w", None, "conflict"),
        ("r", None, "a", "conflict"),
        (None, "w", "a", "in_the_way"),
        (None, None, "a", "added"),
    ],
)
def test_each_row_of_the_table(recorded: str | None, wanted: str | None, actual: str | None, verdict: str) -> None:
    assert judge(entry(recorded), entry(wanted), entry(actual)) == verdict


def test_what_a_sync_that_was_cut_short_brought_is_nobodys_edit() -> None:
    """Where not even the way back could be ended; what somebody made besides still is one."""
    found = seen({"a": "one", "b": "one", "c": "one", "e": "one"}, {"a": "two", "d": "two", "c": "one", "e": "three"})
    scan = Scan(target="api", recorded_tree="R", differences=tuple(found))
    changes = [TreeChange("a", entry("one"), entry("three"))]
    plan = reconcile("api", "R", "W", changes, scan, {}, "refuse", None, ours={"a", "b", "d"})
    assert {s.path: (s.before, s.after, s.rescue) for s in plan.steps} == {
        "a": (entry("two"), entry("three"), None),
        "b": (None, entry("one"), None),
        "d": (entry("two"), None, None),
    }
    assert [d.path for d in plan.drift] == ["e"]


@pytest.mark.parametrize("wanted", ["one", "three", None], ids=["as before", "changed", "gone"])
def test_a_folder_that_a_sync_which_was_cut_short_made_where_a_file_was_is_nobodys_either(wanted: str | None) -> None:
    folder = Difference(path="s", state="type_changed", recorded=entry("one"), oddity="directory")
    inner = Difference(path="s/in", state="added", actual=entry("two"))
    scan = Scan(target="api", recorded_tree="R", differences=(folder, inner))
    changes = [TreeChange("s", entry("one"), entry(wanted))] if wanted != "one" else []
    plan = reconcile("api", "R", "W", changes, scan, {}, "refuse", None, ours={"s", "s/in"})
    put = [("s", None, entry(wanted))] if wanted else []
    assert [(s.path, s.before, s.after) for s in plan.steps] == [*put, ("s/in", entry("two"), None)]
    assert (plan.conflicts, plan.drift) == ((), ())
    plan = reconcile("api", "R", "W", changes, scan, {}, "discard", None, ours={"s/in"})
    assert plan.conflicts or plan.drift, "somebody has put something in there"


def test_a_file_that_a_sync_which_was_cut_short_put_where_a_folder_was_is_nobodys_either() -> None:
    inner = Difference(path="s/in", state="deleted", recorded=entry("one"), oddity="file in the way")
    instead = Difference(path="s", state="added", actual=entry("x"))
    scan = Scan(target="api", recorded_tree="R", differences=(instead, inner))
    plan = reconcile("api", "R", "W", [TreeChange("s/in", entry("one"), entry("two"))], scan, {}, "refuse", None,
                     ours={"s", "s/in"})  # fmt: skip
    assert [(s.path, s.before, s.after) for s in plan.steps] == [("s/in", None, entry("two")), ("s", entry("x"), None)]
