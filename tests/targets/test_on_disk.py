"""The three-way table again, this time on real folders with real git, judged by plain dictionaries (table.py)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeport.model.errors import Refused
from tests.targets.conftest import Content, Host, Made, executable
from tests.targets.table import IN_PLACE, MUTABLE, PROTECTED, Tree, outcome
from tests.test_three_way import three

SOME = settings(max_examples=10, deadline=None, database=None)
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One mirror for all examples; each has a live folder and a target of its own."""
    host = Host(tmp_path_factory.mktemp("table"))
    host.origin.commit({".gitignore": "log\n"})
    yield host
    host.store.close()


def committed(host: Host, tree: Tree) -> str:
    """The tree as the whole of api/ (and a file that is always there)."""
    files: dict[str | bytes, Content | Made] = {path: None for path in list(host.origin.tree) if path.startswith(b"api/")}
    for path, content in {**tree, "keep": "x"}.items():
        made = content.removesuffix("+x")
        files["api/" + path] = executable(made) if content.endswith("+x") else made
    gone = {path: content for path, content in files.items() if content is None}
    host.origin.tree = {path: made for path, made in host.origin.tree.items() if path not in gone}
    return host.commit_at_root({path: content for path, content in files.items() if content is not None})


def by_hand(live: Path, now: Tree, wanted: Tree) -> None:
    """Makes the live folder hold exactly this."""
    for path in now.keys() - wanted.keys():
        (live / path).unlink()
    for folder, _, _ in sorted(os.walk(live), reverse=True):
        if folder != str(live) and not os.listdir(folder):
            os.rmdir(folder)
    for path, content in wanted.items():
        if now.get(path) != content:
            (live / path).parent.mkdir(parents=True, exist_ok=True)
            (live / path).write_text(content.removesuffix("+x"))
            (live / path).chmod(0o755 if content.endswith("+x") else 0o644)


def lies_there(host: Host) -> Tree:
    found = {path: text + ("+x" if host.mode(path) & 0o100 else "") for path, text in host.files().items()}
    assert found.pop("keep") == "x"
    return found


@SOME
@given(rwa=three(), on_drift=st.sampled_from(["refuse", "keep", "discard"]))
def test_every_deploy_leaves_what_the_table_says(shared: Host, rwa: tuple[Tree, Tree, Tree], on_drift: str) -> None:
    host, (r, w, a) = shared, rwa
    name = f"t{next(NUMBERS)}"
    host.live = host.root / "srv" / name
    host.target = host.make_target(name=name, path=host.live, protect=PROTECTED, mutable=MUTABLE, in_place=IN_PLACE)
    host.deploy(committed(host, r))
    assert lies_there(host) == r
    by_hand(host.live, r, a)
    known, expected = len(host.box.listing()), outcome(r, w, a, on_drift)
    sha = committed(host, w)
    plan = host.plan(sha, on_drift)
    assert {d.path: "conflict" for d in plan.conflicts} | {d.path: "drift" for d in plan.drift} == expected.refused
    if expected.refused:
        with pytest.raises(Refused):
            host.deploy(sha, on_drift)
        assert lies_there(host) == a
        assert len(host.box.listing()) == known
        return
    assert host.carry_out(plan, sha).surprised == ()
    after = lies_there(host)
    assert after == expected.after
    saved = {(x.path, host.box.read(x).decode()) for x in host.box.listing() if x.service == name}
    for path, content in a.items():
        if after.get(path) != content and r.get(path) != content:
            assert (path, content.removesuffix("+x")) in saved, f"{path} is lost"
    again = host.plan(sha, "keep")
    assert not again.steps and not again.conflicts
    assert set(again.kept) == {d.path for d in host.scan().differences}
