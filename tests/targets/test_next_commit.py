"""A commit after one that was checked: only what differs is looked at, and the answer is the same."""

from __future__ import annotations

import random

import pytest

from homeport.doors import trees
from homeport.model.errors import Refused
from tests.targets.conftest import Host, Made, refused

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12\n"


class Nothing:
    """A cache that remembers nothing: every tree is looked at whole."""

    def cached(self, key: str) -> str | None:
        del key

    def cache(self, key: str, value: str) -> None:
        del key, value


@pytest.mark.parametrize("seed", range(3))
def test_the_answer_is_that_of_a_whole_look(host: Host, seed: int) -> None:
    chance = random.Random(seed)
    names = ["a.txt", "b/c.txt", ".env", "b/.env", "up/x", "up/y/z", "b/up/x", "d/e/f"]
    patterns = (".env", "/up/", "!/up/y/")
    there: set[str] = set()
    for number in range(8):
        changes: dict[str, str | None] = {"always": str(number)}
        for name in chance.sample(names, 3):
            changes[name] = None if name in there and chance.random() < 0.5 else f"{number}"
        there = {n for n in there | set(changes) if changes.get(n, "") is not None}
        sha = host.commit(changes)  # type: ignore[arg-type]
        stepwise = trees.filtered_tree(host.mirror, sha, "api", patterns, host.store)
        assert stepwise == trees.filtered_tree(host.mirror, sha, "api", patterns, Nothing())


def test_what_must_not_be_put_there_is_refused_in_a_later_commit_too(host: Host) -> None:
    host.put({"a.txt": "one"})
    sha = host.commit({"module": Made("160000", b"1" * 40)})
    refused("submodule", lambda: host.targets.wanted(host.target, sha))


def test_a_later_gitattributes_below_the_source_has_older_files_looked_at(host: Host) -> None:
    host.put({"part/big.bin": POINTER})
    sha = host.commit({"part/.gitattributes": "*.bin filter=lfs\n"})
    refused("lfs", lambda: host.targets.wanted(host.target, sha))


def test_a_later_pointer_is_found_where_older_attributes_ask_for_them(host: Host) -> None:
    host.put({"part/.gitattributes": "*.bin filter=lfs\n"})
    sha = host.commit({"part/big.bin": POINTER})
    refused("lfs", lambda: host.targets.wanted(host.target, sha))


def test_a_refused_commit_is_refused_again(host: Host) -> None:
    host.put({"a.txt": "one"})
    host.commit({"module": Made("160000", b"1" * 40)})
    sha = host.commit({"a.txt": "two"})
    for _ in range(2):
        with pytest.raises(Refused):
            host.targets.wanted(host.target, sha)


def test_ignore_files_are_found_by_their_whole_name_only(host: Host) -> None:
    sha = host.commit({"x/.gitignore": "one\n", "y/not.gitignore": "two\n", ".gitignore": "three\n",
                       ".gitignore.old": "four\n"})  # fmt: skip
    tree = host.mirror.tree_of(sha, "api")
    assert tree is not None
    assert [path for path, _ in host.mirror.named(tree, ".gitignore")] == [".gitignore", "x/.gitignore"]


def test_asking_ahead_changes_no_answer(host: Host) -> None:
    sha = host.commit({"a.txt": "one", ".gitattributes": "* text\n", "module": Made("160000", b"1" * 40)})
    paths = ["api", "api/a.txt", "api/.gitattributes", "api/.gitignore", "api/module", "nowhere", "api/a\nb"]
    before = {path: (host.mirror.tree_of(sha, path), host.mirror.entry_at(sha, path)) for path in paths}
    host.mirror._seen.clear()
    host.mirror.ask_ahead(sha, paths)
    assert {path: (host.mirror.tree_of(sha, path), host.mirror.entry_at(sha, path)) for path in paths} == before
