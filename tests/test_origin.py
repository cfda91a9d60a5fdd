"""A checkout's origin read without git: the same answer as git's, or none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from homeport.doors.origin import plain_origin

HEAD = "[core]\n\trepositoryformatversion = 0\n"
SETTINGS = {
    "plain": ('[remote "origin"]\n\turl = git@example.com:shop.git\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n', True),
    "spaces and case": ('[remote "origin"]\n  URL=https://example.com/shop.git  \n', True),
    "beside others": ('[remote "mine"]\n\turl = /a\n[remote "origin"]\n\turl = /b\n[remote "far"]\n\turl = /c\n', True),
    "none": ('[remote "mine"]\n\turl = /a\n', False),
    "two of them": ('[remote "origin"]\n\turl = /a\n\turl = /b\n', False),
    "in two places": ('[remote "origin"]\n\turl = /a\n[remote "origin"]\n\turl = /b\n', False),
    "the older writing": ("[remote.origin]\n\turl = /a\n", False),
    "on one line": ('[remote "origin"] url = /a\n', False),
    "quoted": ('[remote "origin"]\n\turl = "/a b"\n', False),
    "a remark": ('[remote "origin"]\n\turl = /a # moved\n', False),
    "a long line": ('[remote "origin"]\n\turl = /a\\\nb\n', False),
    "an inclusion": ('[remote "origin"]\n\turl = /a\n[include]\n\tpath = more\n', False),
    "a commented one": ('[remote "origin"]\n\t# url = /a\n\turl = /b\n', True),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_it_is_what_git_says_or_git_is_asked(name: str, tmp_path: Path) -> None:
    text, plain = SETTINGS[name]
    (tmp_path / ".git/refs").mkdir(parents=True)
    (tmp_path / ".git/objects").mkdir()
    (tmp_path / ".git/HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / ".git/config").write_text(HEAD + text)
    (tmp_path / ".git/more").write_text('[remote "origin"]\n\turl = /included\n')
    asked = ["git", "-C", str(tmp_path), "config", "--get", "remote.origin.url"]
    said = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    assert plain_origin(str(tmp_path)) == (said if plain else None)


def test_where_there_is_no_folder_of_settings_git_is_asked(tmp_path: Path) -> None:
    assert plain_origin(str(tmp_path)) is None
    (tmp_path / ".git").write_text("gitdir: /elsewhere\n")
    assert plain_origin(str(tmp_path)) is None
