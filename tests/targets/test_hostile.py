"""Repositories and hosts that mean harm, or only use odd names: nothing leaves the folder, bytes stay bytes."""

from __future__ import annotations

import os

import pytest

from homeport.doors.trees import is_hostile
from homeport.model.errors import HomeportError
from tests.targets.conftest import Host, Made, executable, git, link, refused

ODD_NAMES = [
    b"with space", b" leading", b"trailing ", b"new\nline", b"tab\tin it", b'quo"te', b"back\\slash", b"\xff\xfe",
    b"caf\xe9", "naïve".encode(), b"-rf", b"--help", b":(glob)x", b"*", b"?[a]", b"#x", b"!x", b"a..b", b"...", b"\x01",
    b"dir x/-y\n/z", b"%s%n", b"$(id)", b"`id`", b"a;b", b"A", b"a", b"con", b"x" * 255,
]  # fmt: skip


def test_odd_names_go_there_and_back(host: Host) -> None:
    first = {name: b"%d" % n for n, name in enumerate(ODD_NAMES)}
    host.put(first)
    assert on_disk(host) == first
    assert host.states() == {}
    second = {name: content + b" more" for name, content in first.items()}
    host.put(second)
    assert on_disk(host) == second
    host.put(dict.fromkeys(ODD_NAMES[1:]))
    assert on_disk(host) == {ODD_NAMES[0]: b"0 more"}


def test_edits_of_files_with_odd_names_are_seen_and_saved(host: Host) -> None:
    host.put(dict.fromkeys(ODD_NAMES, "git"))
    for name in ODD_NAMES:
        with open(os.path.join(os.fsencode(host.live), name), "wb") as file:
            file.write(b"by hand " + name)
    found = host.drift()
    assert {os.fsencode(path) for path in found} == set(ODD_NAMES)
    host.targets.discard(host.target, list(found.values()), None)
    assert on_disk(host) == dict.fromkeys(ODD_NAMES, b"git")
    assert sorted(host.box.read(r) for r in host.box.listing()) == sorted(b"by hand " + name for name in ODD_NAMES)


def test_added_files_with_odd_names_are_seen(host: Host) -> None:
    host.put({"a.txt": "one"})
    for name in (b"new\nline", b"\xff\xfe", b"with space"):
        with open(os.path.join(os.fsencode(host.live), name), "wb") as file:
            file.write(b"mine")
    assert {os.fsencode(path) for path in host.drift()} == {b"new\nline", b"\xff\xfe", b"with space"}


def on_disk(host: Host) -> dict[bytes, bytes]:
    found = {}
    top = os.fsencode(host.live)
    for folder, _, files in os.walk(top):
        for name in files:
            path = os.path.relpath(os.path.join(folder, name), top)
            if path != b".homeport":
                with open(os.path.join(folder, name), "rb") as file:
                    found[path] = file.read()
    return found


@pytest.mark.parametrize(
    "name",
    [b".git", b".GIT", b".Git", b"git~1", b"GIT~2", b".g\xe2\x80\x8cit", b".git ", b".git.", b".git . .", b".git::$INDEX",
     b".", b"..", b"", b"a/b", b"x\\.git", b"..\\..\\etc", b"\xe2\x80\x8c.."],
)  # fmt: skip
def test_a_name_that_somebody_takes_for_something_else_is_hostile(name: bytes) -> None:
    assert is_hostile(name)


@pytest.mark.parametrize("name", [b".gitignore", b".github", b"git", b"git~x", b"...", b"..a", b"a\\b", b".gitattributes"])
def test_an_innocent_name_is_not_hostile(name: bytes) -> None:
    assert not is_hostile(name)


@pytest.mark.parametrize("name", [b".git", b".GIT", b"git~1", b"..", b".", b".g\xe2\x80\x8cit", b".git ", b"x\\.git"])
@pytest.mark.parametrize("where", [b"", b"deep"])
def test_a_tree_with_a_hostile_name_is_refused_before_anything_is_written(host: Host, name: bytes, where: bytes) -> None:
    host.put({"a.txt": "one"})
    sha = planted(host, name, where)
    refused("hostile-name", lambda: host.targets.wanted(host.target, sha))
    assert host.files() == {"a.txt": "one"}


def planted(host: Host, name: bytes, where: bytes) -> str:
    """A commit in the mirror whose api/ holds a.txt and, in `where`, a file of that name, as no fetch would let in."""
    mirror = host.mirror.path
    blob = git(mirror, "hash-object", "-w", "--stdin", input=b"one")

    def tree(*entries: tuple[bytes, bytes, str]) -> str:
        raw = b"".join(mode + b" " + called + b"\0" + bytes.fromhex(oid) for mode, called, oid in entries)
        return git(mirror, "hash-object", "-w", "-t", "tree", "--literally", "--stdin", input=raw)

    evil = (b"100644", name, blob)
    below = [evil] if not where else [(b"40000", where, tree(evil))]
    api = tree(*sorted([(b"100644", b"a.txt", blob), *below], key=lambda e: e[1]))
    return git(mirror, "commit-tree", "-m", "x", tree((b"40000", b"api", api)))


@pytest.mark.parametrize("name", [b".git", b"..", b"a/b", b"git~1"])
def test_a_fetch_lets_no_hostile_tree_in(host: Host, name: bytes) -> None:
    sha = host.put({"a.txt": "one"})
    blob = git(host.origin.path, "hash-object", "-w", "--stdin", input=b"x")
    raw = b"100644 " + name + b"\0" + bytes.fromhex(blob)
    evil = git(host.origin.path, "hash-object", "-w", "-t", "tree", "--literally", "--stdin", input=raw)
    git(host.origin.path, "update-ref", "refs/heads/main", git(host.origin.path, "commit-tree", "-m", "x", "-p", sha, evil))
    with pytest.raises(HomeportError):
        host.mirror.fetch()
    assert host.mirror.tip("main") == sha


def test_a_submodule_is_refused_by_name(host: Host) -> None:
    first = host.put({"a.txt": "one"})
    sha = host.commit({"vendor/sub": Made("160000", first.encode())})
    assert "vendor/sub" in refused("submodule", lambda: host.deploy(sha)).what


def test_a_submodule_outside_the_source_is_nobodys_business(host: Host) -> None:
    first = host.put({"a.txt": "one"})
    host.deploy(host.commit_at_root({"vendor": Made("160000", first.encode()), "api/a.txt": "two"}))
    assert host.read("a.txt") == "two"


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"


@pytest.mark.parametrize("attributes", [".gitattributes", "api/.gitattributes", "api/media/.gitattributes"])
def test_an_lfs_pointer_is_refused_by_name(host: Host, attributes: str) -> None:
    host.put({"a.txt": "one"})
    sha = host.commit_at_root({attributes: "*.bin filter=lfs diff=lfs merge=lfs -text\n", "api/media/big.bin": POINTER})
    assert "media/big.bin" in refused("lfs", lambda: host.deploy(sha)).what


def test_attributes_of_the_commit_change_no_byte(host: Host) -> None:
    crlf, ident, utf16 = b"a\r\nb\n\r\n", b"$Id$ and $Id: x $\n", "text\n".encode("utf-16")
    ran = host.root / "ran"
    host.put({
        ".gitattributes": "*.txt text eol=crlf\n*.c ident\n*.x filter=evil\n*.u text working-tree-encoding=UTF-16\n"
                          "gone export-ignore\n",
        "a.txt": crlf, "b.c": ident, "c.x": b"\x00raw\r\n", "d.u": utf16, "gone": "still here",
    })  # fmt: skip
    git(host.mirror.path, "config", "filter.evil.clean", f"touch {ran}; cat")
    git(host.mirror.path, "config", "filter.evil.smudge", f"touch {ran}; tr a b")
    assert on_disk(host)[b"a.txt"] == crlf
    assert on_disk(host)[b"b.c"] == ident
    assert on_disk(host)[b"c.x"] == b"\x00raw\r\n"
    assert on_disk(host)[b"d.u"] == utf16
    assert on_disk(host)[b"gone"] == b"still here"
    for name in ("a.txt", "b.c", "c.x", "d.u"):
        os.utime(host.live / name, (1, 1))
    assert host.states() == {}
    host.write("a.txt", crlf.replace(b"\r\n", b"\n"))
    assert host.states() == {"a.txt": "modified"}
    assert not ran.exists()


def test_attributes_found_in_the_live_folder_hide_no_edit(host: Host) -> None:
    host.put({"a.txt": b"a\nb\n"})
    host.write(".gitattributes", "* text eol=crlf\n")
    host.write("a.txt", b"a\r\nb\r\n")
    assert host.states() == {".gitattributes": "added", "a.txt": "modified"}


def test_a_planted_link_above_a_file_is_not_followed_when_reading(host: Host) -> None:
    host.put({"lib/a.txt": "one", "b.txt": "x"})
    outside = host.root / "outside"
    outside.mkdir()
    (outside / "a.txt").write_text("one")
    (host.live / "lib/a.txt").unlink()
    (host.live / "lib").rmdir()
    (host.live / "lib").symlink_to(outside)
    found = host.drift()
    assert found["lib/a.txt"].state == "deleted"
    assert found["lib/a.txt"].oddity == "link in the way"
    assert host.targets.read_live(host.target, "lib/a.txt") is None


def test_a_planted_link_above_a_file_is_not_followed_when_writing(host: Host) -> None:
    host.put({"lib/a.txt": "one", "b.txt": "x"})
    sha = host.commit({"lib/a.txt": "two", "lib/new.txt": "new", "b.txt": None})
    plan = host.plan(sha)
    outside = host.root / "outside"
    outside.mkdir()
    (outside / "a.txt").write_text("precious")
    (host.live / "lib/a.txt").unlink()
    (host.live / "lib").rmdir()
    (host.live / "lib").symlink_to(outside)
    refused("conflict", lambda: host.carry_out(plan, sha))
    assert {p.name: p.read_text() for p in outside.iterdir()} == {"a.txt": "precious"}
    refused("conflict", lambda: host.deploy(sha, "discard"))
    assert {p.name: p.read_text() for p in outside.iterdir()} == {"a.txt": "precious"}


def test_a_planted_link_does_not_let_a_deletion_out_of_the_folder(host: Host) -> None:
    host.put({"lib/a.txt": "one", "b.txt": "x"})
    sha = host.commit({"lib/a.txt": None})
    plan = host.plan(sha)
    (host.live / "lib").rename(host.root / "outside")
    (host.live / "lib").symlink_to(host.root / "outside")
    refused("conflict", lambda: host.carry_out(plan, sha))
    assert (host.root / "outside/a.txt").read_text() == "one"


def test_a_link_of_the_commit_is_put_there_and_never_written_through(host: Host) -> None:
    outside = host.root / "outside"
    outside.mkdir()
    (outside / "f").write_text("precious")
    host.put({"to": link(str(outside)), "file": link(str(outside / "f"))})
    host.put({"to": None, "to/f": "from git", "file": "a file now"})
    assert host.files() == {"to/f": "from git", "file": "a file now"}
    assert (outside / "f").read_text() == "precious"


def test_a_live_file_replaced_by_a_link_is_not_written_through(host: Host) -> None:
    host.put({"a.txt": "one"})
    outside = host.root / "outside"
    outside.write_text("precious")
    (host.live / "a.txt").unlink()
    (host.live / "a.txt").symlink_to(outside)
    assert host.states() == {"a.txt": "type_changed"}
    host.deploy(host.commit({"b.txt": "x"}), "discard")
    assert host.read("a.txt") == "one"
    assert outside.read_text() == "precious"
    assert host.rescued() == {"a.txt": os.fsencode(outside)}


def test_an_in_place_file_replaced_by_a_link_is_not_written_through(host: Host) -> None:
    host.target = host.make_target(in_place=("a.txt",))
    host.put({"a.txt": "one"})
    sha = host.commit({"a.txt": "two"})
    plan = host.plan(sha)
    outside = host.root / "outside"
    outside.write_text("precious")
    (host.live / "a.txt").unlink()
    (host.live / "a.txt").symlink_to(outside)
    result = host.carry_out(plan, sha)
    assert outside.read_text() == "precious"
    assert host.read("a.txt") == "two"
    assert result.surprised == ("a.txt",)


def test_files_and_folders_and_links_change_into_each_other(host: Host) -> None:
    host.put({"a": "file", "b/x": "in a folder", "b/deep/y": "deeper", "c": link("a"), "d": executable("run")})
    host.put({"a": None, "a/x": "in a folder", "b/x": None, "b/deep/y": None, "b": "file", "c": "file", "d": link("b")})
    assert host.files() == {"a/x": "in a folder", "b": "file", "c": "file", "d": "-> b"}
    assert host.states() == {}
    host.put({"a/x": None, "a": link("b"), "b": None, "b/x": "again", "c": None, "c/deep/er": "x", "d": "plain"})
    assert host.files() == {"a": "-> b", "b/x": "again", "c/deep/er": "x", "d": "plain"}
    assert host.states() == {}
    assert host.rescued() == {}


def test_an_empty_folder_in_the_way_of_a_file_is_no_content(host: Host) -> None:
    host.put({"a.txt": "one"})
    (host.live / "logs").mkdir()
    host.put({"logs": "a file"})
    assert host.read("logs") == "a file"


def test_the_last_file_of_the_source_may_go(host: Host) -> None:
    host.put({"a.txt": "one", "deep/er/b.txt": "two"})
    host.write("upload.bak", "protected")
    host.put({"deep/er/b.txt": None, "a.txt": None, ".gitkeep": ""})
    assert host.files() == {".gitkeep": "", "upload.bak": "protected"}
    assert not (host.live / "deep").exists()


def test_a_source_that_is_only_protected_files_is_an_empty_tree(host: Host) -> None:
    host.put({"a.txt": "one"})
    host.put({"a.txt": None, ".env": "SECRET=1"})
    assert host.files() == {}
    host.put({"b.txt": "again"})
    assert host.files() == {"b.txt": "again"}


def test_a_source_that_is_gone_is_refused(host: Host) -> None:
    host.put({"a.txt": "one"})
    sha = host.commit_at_root({"api/a.txt": None, "other": "x"})
    refused("no-source", lambda: host.deploy(sha))
    assert host.files() == {"a.txt": "one"}
