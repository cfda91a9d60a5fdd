"""The pure part of the way back and the doors it uses: hunks, choices, the ledger's life, proofs, secrets."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.decide import adopting, durations, edits
from homeport.doors.clock import SystemClock
from homeport.doors.git import Mirror
from homeport.doors.ledger import EditLedger
from homeport.doors.merging import Branches
from homeport.doors.permits import Permits
from homeport.doors.secretscan import SecretLook
from homeport.doors.shell import LocalShell
from homeport.doors.store import SqliteStore
from homeport.model.edits import Edit, EditState, Person
from homeport.model.errors import InfrastructureFault
from homeport.model.live import Difference, Entry

NOW = "2026-01-02T03:04:05.000Z"
LATER = "2026-01-09T03:04:05.000Z"
A, B, C = (Entry("100644", letter * 40) for letter in "abc")

lines = st.lists(st.sampled_from([b"a\n", b"b\n", b"c\r\n", b"\n", b"d", b"\xff\n"]), max_size=12).map(b"".join)


# Hunks.


@given(lines, lines)
def test_all_hunks_make_the_new_content_and_none_the_old(old: bytes, new: bytes) -> None:
    pieces = adopting.hunks(old, new)
    assert pieces is not None
    assert adopting.assemble(old, new, pieces) == new
    assert adopting.assemble(old, new, []) == old


@given(lines, lines, st.data())
def test_what_is_left_out_is_found_again_as_what_is_left(old: bytes, new: bytes, data: st.DataObject) -> None:
    pieces = adopting.hunks(old, new) or []
    chosen = [piece for piece in pieces if data.draw(st.booleans())]
    part = adopting.assemble(old, new, chosen)
    if len(chosen) < len(pieces):
        assert part != new
    assert adopting.assemble(part, new, adopting.hunks(part, new) or []) == new


def test_a_binary_file_has_no_hunks() -> None:
    assert adopting.hunks(b"a\0b", b"a\0c") is None
    assert adopting.hunks(b"a", b"\0") is None


def test_a_hunk_shows_what_a_terminal_may_see() -> None:
    (piece,) = adopting.hunks(b"one\n", b"\x1b[31mtwo") or []
    assert piece.text == "@@ -1,1 +1,1 @@\n-one\n+\\x1b[31mtwo (no line end)"


# What is adopted.


def difference(path: str, **more: object) -> Difference:
    return Difference(path=path, state="modified", recorded=A, actual=more.pop("actual", B), **more)  # type: ignore[arg-type]


def edit(path: str, state: EditState, **more: object) -> Edit:
    return Edit(id=f"e-{path}", target="api", service="api", path=path, state=state, since=NOW,
                actual=more.pop("actual", B), **more)  # type: ignore[arg-type]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "known", "named", "because"),
    [
        (difference("a"), [], None, None),
        (difference("a", oddity="fifo", actual=None), [], None, "not a file or link: fifo"),
        (difference("a", oddity="directory", actual=None), [], None, None),
        (difference("a", oddity="unreadable", actual=None), [], ["a"], "cannot be read"),
        (difference("a", foreign="f" * 40), [], ["a"],
         "as in commit ffffffffffff: another deployer wrote it, or it is merged already"),
        (difference("a"), [edit("a", "accepted", because="load test")], None, "accepted: load test"),
        (difference("a"), [edit("a", "accepted", because="load test")], ["a"], None),
        (difference("a/b"), [edit("a/b", "accepted", because="load test")], ["a"], "accepted: load test"),
        (difference("a"), [edit("a", "accepted", because="load test", actual=C)], None, None),
        (difference("a"), [edit("a", "adopted", branch="there")], None, "on branch there already"),
        (difference("a"), [edit("a", "adopted", branch="gone")], None, None),
        (difference(".GIT/config"), [], None, "git takes no file of that name"),
    ],
)  # fmt: skip
def test_what_is_left_out_is_told_why(what: Difference, known: list[Edit], named: list[str] | None,
                                      because: str | None) -> None:  # fmt: skip
    taken, skipped = adopting.select([what], named, known, foreign=False, hostile=lambda path: ".GIT" in path,
                                     branches=lambda name: name == "there", large=lambda _: False)  # fmt: skip
    assert [row.because for row in skipped] == ([because] if because else [])
    assert [d.path for d in taken] == ([] if because else [what.path])


def test_a_name_takes_a_folder_and_nothing_that_only_begins_like_it() -> None:
    there = [difference("lib/a"), difference("library"), difference("lib")]
    taken, _ = adopting.select(there, ["lib"], [], foreign=False, hostile=lambda _: False, branches=lambda _: False,
                               large=lambda _: False)  # fmt: skip
    assert [d.path for d in taken] == ["lib/a", "lib"]
    assert not any(adopting.named_by(d.path, ["", "/", "li"]) for d in there)


def test_the_message_names_what_was_adopted_and_where_it_ran() -> None:
    one = adopting.message(None, ["api/a.js"], "prod-1", "production", ["f" * 40, "f" * 40])
    assert one == (
        "Adopt api/a.js from prod-1\n\nHomeport-Host: prod-1\nHomeport-Environment: production\n"
        f"Homeport-Deployed: {'f' * 40}\n"
    )
    many = adopting.message(None, ["a", "b\n\nSigned-off-by: x"], "prod\n1", "production", [])
    assert many.splitlines()[0] == "Adopt 2 edits from prod\\x0a1"
    assert "\nSigned-off-by" not in many
    assert many.endswith("Homeport-Deployed: none\n")


def test_which_branches_may_be_new() -> None:
    assert adopting.fit_branch("fix/a", ["main"]) is None
    assert all(adopting.fit_branch(name, ["main"]) for name in ("main", "-d", "refs/heads/x", ""))


def test_a_name_that_git_cannot_store_is_mended_and_a_missing_one_refused() -> None:
    assert adopting.person_of("Ada <root>\n", "ada@example.com") == Person(name="Ada root", email="ada@example.com")
    assert adopting.person_of("Ada", " ") is None
    assert adopting.person_of("", "ada@example.com") is None


# The life of an edit.


def look(known: list[Edit], *found: Difference, ahead: dict[str, Entry | None] | None = None, now: str = NOW) -> list[Edit]:
    sight = edits.Sight(target="api", differences=found, ahead=ahead or {})
    return edits.after_look(known, sight, now, lambda _: "api", lambda: "e-new")


def test_a_first_look_opens_an_edit_and_a_second_changes_nothing() -> None:
    (opened,) = look([], difference("a"))
    assert (opened.id, opened.state, opened.since, opened.actual) == ("e-new", "open", NOW, B)
    assert look([opened], difference("a"), now=LATER) == []


def test_what_another_deployer_wrote_is_no_edit() -> None:
    assert look([], difference("a", foreign="f" * 40)) == []


@pytest.mark.parametrize("state", ["open", "accepted", "adopted", "merged"])
def test_an_edit_is_closed_when_live_deployed_and_git_agree(state: EditState) -> None:
    (closed,) = look([edit("a", state, until=LATER)], now=LATER)
    assert (closed.state, closed.ended) == ("closed", LATER)


def test_an_edit_lives_while_git_has_something_else() -> None:
    assert look([edit("a", "adopted")], ahead={"a": C}) == []


def test_an_adopted_edit_is_merged_when_the_branch_has_its_content() -> None:
    (merged,) = look([edit("a", "adopted", branch="b")], difference("a", foreign="f" * 40), ahead={"a": B})
    assert (merged.state, merged.branch) == ("merged", "b")
    assert look([edit("a", "adopted")], difference("a"), ahead={"a": C}) == []
    (gone,) = look([edit("a", "open", actual=None)], difference("a", actual=None), ahead={"a": None})
    assert gone.state == "merged"


def test_an_edit_of_an_edit_is_decided_anew() -> None:
    known = edit("a", "accepted", because="x", until=LATER, branch="b", commit="c" * 40, number=3, request="r",
                 landed="d" * 40)  # fmt: skip
    (again,) = look([known], difference("a", actual=C))
    assert again == edit("a", "open", actual=C)


def test_an_acceptance_runs_out() -> None:
    known = edit("a", "accepted", because="x", until="2026-01-03T03:04:05.000Z")
    assert look([known], difference("a")) == []
    (opened,) = look([known], difference("a"), now="2026-01-03T03:04:05.000Z")
    assert (opened.state, opened.because, opened.until) == ("open", None, None)


def test_only_undecided_and_unmerged_edits_grow_old() -> None:
    known = [edit(state, state) for state in ("open", "accepted", "adopted", "merged", "closed", "discarded")]  # type: ignore[arg-type]
    week = 7 * 86400
    assert [e.state for e in edits.old(known, LATER, week)] == ["open", "adopted"]
    assert edits.old(known, LATER, week + 1) == []


@pytest.mark.parametrize(
    ("said", "end"),
    [
        ("7d", "2026-01-09T03:04:05.000Z"),
        ("90m", "2026-01-02T04:34:05.000Z"),
        ("2026-12-31", "2026-12-31T00:00:00.000Z"),
        ("2026-12-31T12:00:00+02:00", "2026-12-31T10:00:00.000Z"),
        ("soon", None),
        ("", None),
    ],
)
def test_how_the_end_of_an_acceptance_is_written(said: str, end: str | None) -> None:
    assert edits.expiry(said, NOW, durations.parse) == end


# The doors.


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[EditLedger]:
    store = SqliteStore(str(tmp_path / "homeport.db"), SystemClock())
    yield EditLedger(store.database)
    store.close()


def test_a_path_has_one_living_edit(ledger: EditLedger) -> None:
    first, second = edit("a", "open"), Edit(id="e-2", target="api", service="api", path="a", state="open", since=NOW)
    ledger.save([first])
    ledger.save([second])
    assert ledger.living("api") == [first]
    ended = edits.ended([first], ["a"], "discarded", "ada", LATER)
    ledger.save([second, *ended])
    assert (ledger.living(), ledger.living("other")) == ([second], [])
    assert {e.id: e.state for e in ledger.all()} == {"e-2": "open", "e-a": "discarded"}


def test_the_ledger_keeps_paths_that_are_no_text(ledger: EditLedger) -> None:
    (opened,) = look([], difference("caf\udce9"))
    ledger.save([opened])
    assert look(ledger.living("api"), difference("caf\udce9")) == []


def test_edits_that_came_and_went_by_themselves_are_not_kept_for_ever(ledger: EditLedger) -> None:
    def ended(of: int, **more: Any) -> Edit:
        return Edit(id=f"e-{of}", target="api", service="api", path=f"tmp{of}", state="closed", since=f"{of:05}", **more)

    ledger.save([ended(0, by="ada"), ended(1, commit="c" * 40), ended(2, number=7, request="https://forge.example.com/7")])
    ledger.save([edit("a", "open"), *map(ended, range(3, 3000))])
    ids = [e.id for e in ledger.all() if e.state == "closed"]
    assert len(ids) == 2000 and {"e-0", "e-1", "e-2", "e-2999"} <= set(ids) and "e-3" not in ids
    assert ledger.living() == [edit("a", "open")]


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    origin = tmp_path / "origin.git"
    subprocess.run(["git", "init", "-q", "--bare", str(origin)], check=True)
    return Mirror.open_or_create(str(tmp_path / "repo.git"), str(origin), LocalShell())


ADA = Person(name="Ada", email="ada@example.com")


def tree(mirror: Mirror, **files: bytes) -> str:
    return mirror.write_tree({name: Entry("100644", mirror.write_blob(content)) for name, content in files.items()})


def test_the_proof_refuses_other_paths_and_other_histories(mirror: Mirror) -> None:
    doors = Branches(mirror, Permits(None))
    base = doors.commit(tree(mirror, a=b"1", b=b"1"), [], "base\n", ADA)
    one = doors.commit(tree(mirror, a=b"2", b=b"1"), [base], "one\n", ADA)
    both = doors.commit(tree(mirror, a=b"2", b=b"2"), [base], "both\n", ADA)
    two = doors.commit(tree(mirror, a=b"2", b=b"1"), [one], "two\n", ADA)
    apart = doors.commit(tree(mirror, a=b"2", b=b"1"), [], "apart\n", ADA)
    doors.prove(base, one, ["a"])
    for commit, paths in ((both, ["a"]), (one, ["a", "b"]), (two, ["a"]), (apart, ["a"]), (base, [])):
        with pytest.raises(InfrastructureFault) as told:
            doors.prove(base, commit, paths)
        assert told.value.code == "proof"


def test_contents_are_merged_line_by_line_whatever_attributes_say(mirror: Mirror) -> None:
    doors = Branches(mirror, Permits(None))
    text = b"".join(b"line %d\r\n" % n for n in range(50))
    first, last = text.replace(b"line 0\r", b"first\r"), text.replace(b"line 49\r", b"last\r")
    merged = doors.merge(tree(mirror, a=text, b=b"1"), tree(mirror, a=first, b=b"1"), tree(mirror, a=last, b=b"2"))
    assert merged.conflicts == ()
    assert merged.tree == tree(mirror, a=first.replace(b"line 49\r", b"last\r"), b=b"2")
    merged = doors.merge(tree(mirror, a=b"1\n", b=b"1"), tree(mirror, a=b"2\n", b=b"\0"), tree(mirror, a=b"3\n", b=b"\0\0"))
    assert merged.conflicts == ("a", "b")


@pytest.mark.parametrize(
    ("was", "now", "there", "changes", "both", "conflicts"),
    [
        (A, B, A, {"p": B}, (), ()),  # only the host
        (A, B, B, {}, (), ()),  # both alike
        (A, None, A, {"p": None}, (), ()),
        (A, None, None, {}, (), ()),
        (None, B, None, {"p": B}, (), ()),
        (None, B, C, {}, (), ("p",)),  # both added
        (A, B, C, {}, ("p",), ()),
        (A, None, C, {}, (), ("p",)),  # deleted here, changed there
        (A, B, None, {}, (), ("p",)),  # changed here, deleted or moved there
    ],
)
def test_what_each_side_did_to_a_path(was: Entry | None, now: Entry | None, there: Entry | None,
                                      changes: dict[str, Entry | None], both: tuple[str, ...],
                                      conflicts: tuple[str, ...]) -> None:  # fmt: skip
    fresh = {"p": there} if there else {}
    assert adopting.sides({"p": was}, {"p": now}, fresh) == adopting.Sides(changes, both, conflicts)


def test_a_file_and_a_folder_of_one_name_are_a_conflict_unless_one_of_them_goes() -> None:
    new = {"lib": None, "lib/a": None}
    assert adopting.sides(new, {"lib": B}, {"lib/a": A}).conflicts == ("lib",)
    assert adopting.sides(new, {"lib/a": B}, {"lib": A}).conflicts == ("lib/a",)
    assert adopting.sides({"lib": None, "lib/a": A}, {"lib": B, "lib/a": None}, {"lib/a": A}).conflicts == ()
    assert adopting.sides({"lib": A, "lib/a": None}, {"lib": None, "lib/a": B}, {"lib": A}).conflicts == ()
    assert adopting.sides(new, {"lib": B}, {"library/a": A}).conflicts == ()


def test_a_branch_is_pushed_once(mirror: Mirror, tmp_path: Path) -> None:
    doors = Branches(mirror, Permits(None))
    first = doors.commit(tree(mirror, a=b"1"), [], "first\n", ADA)
    other = doors.commit(tree(mirror, a=b"2"), [], "other\n", ADA)
    doors.push(first, "new")
    doors.push(first, "new")
    with pytest.raises(Exception, match="already") as told:
        doors.push(other, "new")
    assert getattr(told.value, "code", "") == "branch-exists"
    at = subprocess.run(["git", "rev-parse", "new"], cwd=tmp_path / "origin.git", capture_output=True, text=True).stdout
    assert at.strip() == first


KEY = "AKIA" + "IOSFODNN7QXAMPL3"


@pytest.mark.parametrize(
    ("path", "content", "known", "found"),
    [
        ("a.py", f'key = "{KEY}"\n', "", [1]),
        ("a.py", f'x = 1\nkey = "{KEY}"\n', f'key = "{KEY}"\n', []),
        ("deploy", "-----BEGIN RSA " + "PRIVATE KEY-----\n", "", [1]),
        ("a.conf", "server = 192.0.2.1:8080\n", "", []),
        ("swagger.py", f'\n\nkey = "{KEY}"\n', "", [3]),
        ("a.py", f'key = "{KEY}"  # pragma: allowlist secret\n', "", []),
        ("index.html", "<p>a plain page with words</p>\n", "", []),
    ],
)
def test_what_looks_like_a_secret(tmp_path: Path, path: str, content: str, known: str, found: list[int]) -> None:
    findings = SecretLook(str(tmp_path)).look(path, content.encode(), known.encode())
    assert sorted({finding.line for finding in findings}) == found
    assert KEY not in repr(findings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ssh", "source"),
    [
        (None, "/state/repo.git"),
        ("prod.example.com", "prod.example.com:/state/repo.git"),
        ("deploy@prod.example.com", "deploy@prod.example.com:/state/repo.git"),
        ("deploy@prod.example.com:2222", "ssh://deploy@prod.example.com:2222/state/repo.git"),
        ("2001:db8::1", "'ssh://[2001:db8::1]/state/repo.git'"),
        ("ada@[2001:db8::1]:22", "'ssh://ada@[2001:db8::1]:22/state/repo.git'"),
    ],
)
def test_a_mirror_is_fetched_from_where_its_host_is(ssh: str | None, source: str) -> None:
    assert adopting.fetched_from(ssh, "/state/repo.git") == source


@pytest.mark.parametrize(
    ("ssh", "command"),
    [
        ("prod.example.com", "scp prod.example.com:/state/a.draft a.conf"),
        ("deploy@prod.example.com:2222", "scp -P 2222 deploy@prod.example.com:/state/a.draft a.conf"),
        ("ada@2001:db8::1", "scp 'ada@[2001:db8::1]:/state/a.draft' a.conf"),
        ("[2001:db8::1]:22", "scp -P 22 '[2001:db8::1]:/state/a.draft' a.conf"),
    ],
)
def test_a_text_that_a_host_kept_is_brought_by_scp(ssh: str, command: str) -> None:
    assert adopting.copied_from(ssh, "/state/a.draft", "a.conf") == command
