"""Escape codes, C1 characters and bidirectional overrides in everything that others write (subjects, authors, names of
files, output, reasons) reach no terminal: every verb in words, piped and on a terminal of its own."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import termios
from typing import Any

import pytest

from homeport.cli.main import VERBS
from tests.scenarios.telling import run
from tests.scenarios.test_bad_repository import commit_with
from tests.scenarios.test_canary import LONG_RUNNING, MORE
from tests.world import PROGRAM, World

OSC, CSI, C1, BIDI = "\x1b]0;owned\x07", "\x1b[2J\x1b[31m", "\u009b2J\u009d0;owned\u009c", "\u202egnp.exe\u2066"
EVIL = f"a{OSC}b{CSI}c{C1}d{BIDI}\u200fe\x7f\x08"
OURS = re.compile(r"\x1b\[(\?25[lh]|[0-9;]*m|2K|1A|K|A)|\r|\t|\n")
"""What homeport's own drawing needs: colours, the cursor's moves, the end of a line."""
SERVICES = """
[services.site]
source = "site"
target = "{live}/site"
runtime = "command"
command = ["sh", "{live}/site/say.sh"]
checks = [{ command = ["sh", "{live}/site/say.sh", "check"], within = "100ms" }]

  [services.site.build]
  run = ["sh", "say.sh"]
  outputs = ["dist"]

[[rules]]
id = "never"
action = "migrate"
because = "why not"
"""


def harmful(said: str) -> str:
    """What is left of control characters and overrides when homeport's own are taken out."""
    rest = OURS.sub("", said)
    found = {c for c in rest if ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or c in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067"
             "\u2068\u2069\u200e\u200f\u2028\u2029\ufeff"}  # fmt: skip
    at = min((rest.index(c) for c in found), default=0)
    return repr(rest[max(0, at - 60) : at + 60]) if found else ""


def at_terminal(world: World, *words: str) -> str:
    """What the program writes to a terminal of its own, with colours."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 200))
    env = {**world.env, "TERM": "xterm-256color"}
    child = subprocess.Popen([str(PROGRAM), *words], cwd=world.clone, env=env, stdin=theirs, stdout=theirs, stderr=theirs,
                             start_new_session=True)  # fmt: skip
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 65536):
            said += piece
    except OSError:
        pass  # the other end is closed: it has ended
    finally:
        os.close(ours)
        child.wait(60)
    return said.decode("utf-8", "replace")


@pytest.fixture
def hostile(world: World) -> World:
    """A host on which everything that others may write holds what a terminal would carry out."""
    say = ("printf 'said a\\033]0;owned\\007b\\033[2Jc\\302\\233d\\342\\200\\256e\\n'; mkdir -p dist; date > dist/at; "
           "test ! -e bad")  # fmt: skip
    world.project(SERVICES, {"site/say.sh": say + "\n", "site/a.txt": "one\n", ".gitignore": "dist/\n"})
    world.deploy()
    world.git("config", "user.name", f"Ada {OSC}{BIDI}")
    world.publish({"site/a.txt": "two\n"}, f"subject {EVIL}".replace("\x00", ""))
    blob = world.git("rev-parse", "HEAD:site/a.txt").encode()
    commit_with(world, b"100644 blob " + blob + b"\tnew" + EVIL.encode().replace(b"/", b"") + b"\0")
    world.git("pull", "-q", "origin", "main")
    world.deploy()
    (world.live / "site" / f"hand{EVIL}".replace("/", "")).write_text(f"by hand {EVIL}\n")
    (world.live / "site/a.txt").write_text(f"by hand {EVIL}\n")
    sha = world.publish({"site/bad": f"{EVIL}\n"}, f"worse {EVIL}")
    world.deploy("--discard-drift", ok=None)
    for words in (["hold", f"because {EVIL}"], ["block", "HEAD~1", "--because", EVIL], ["hold", "--because", EVIL],
                  ["discard", EVIL], ["accept", "a.txt", "--because", EVIL, "--until", "2d"], ["deploy", EVIL],
                  ["-e", EVIL, "status"], ["token", "create", EVIL]):  # fmt: skip
        ran = run(world, *words)
        assert not harmful(ran.stdout + ran.stderr), (words[0], harmful(ran.stdout + ran.stderr))
    (world.live / "site/a.txt").write_text(f"again by hand {EVIL}\n")
    assert sha
    return world


LOOKED_AT: list[list[str]] = [["status"], ["history"], ["show"], ["plan"], ["drift"], ["diff"], ["logs"], ["audit"],
                              ["edits"], ["rescue", "list"], ["deploy"], ["rules"], ["doctor"]]  # fmt: skip


def test_no_verb_lets_an_escape_code_of_others_through(hostile: World) -> None:
    said: dict[str, Any] = {}
    for words in LOOKED_AT:
        more = [hostile.json("history")["deploys"][0]["id"]] if words == ["show"] else []
        said[f"{words[0]} on a terminal"] = at_terminal(hostile, *words, *more)
    for verb in (verb for verb in VERBS if verb not in LONG_RUNNING):
        ran = run(hostile, verb, *MORE.get(verb, []))
        said[verb] = ran.stdout + ran.stderr
    del said["diff"]  # piped it is what git says, byte for byte, so that it can be applied
    assert sum("owned" in text for text in said.values()) > 6, [verb for verb, text in said.items() if "owned" in text]
    assert {verb: bad for verb, text in said.items() if (bad := harmful(text))} == {}
