"""The near side of a try on another machine: the working tree is taken here, and only what the host lacks is sent."""

from __future__ import annotations

import base64
import os
import time
from typing import TYPE_CHECKING, Any

import click
import msgspec

from homeport.cli.options import Options
from homeport.model.edits import Person
from homeport.model.errors import InfrastructureFault, Refused, UsageFault
from homeport.model.paths import printable
from homeport.model.remote import MOST_SENT, Place

if TYPE_CHECKING:
    from homeport.model.trying import WorkingTree


SENT_ALONG = 1 << 20
"""Bytes of a pack that goes with the answer what was taken, before it is known whether the host wants it: most hosts have
what it builds on, and are spared a question."""


class TreeAnswers:
    """Answers what a host asks about the working tree; everything else is asked of the person."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._tree: WorkingTree | None = None
        self._packed: tuple[str, list[str], str] | None = None
        """The last pack that was made: the commit, what it builds on, where it lies."""

    def __call__(self, said: dict[str, Any]) -> Any:
        asked, given = said.get("tree"), said.get("with") or {}
        if asked == "take":
            return self._take(given)
        if asked == "pack":
            return self._pack(given)
        if asked in ("built-head", "built"):
            return self._built(str(asked), given)
        from homeport.cli.questions import answered

        return answered(said)

    def close(self) -> None:
        if self._tree is not None:
            self._tree.close()

    @property
    def tree(self) -> WorkingTree:
        from homeport.wiring import working_tree

        if self._tree is None:
            turn, self._options.tree = self._options.tree, None
            self._tree = turn.result() if turn is not None else working_tree(self._options.folder)
        return self._tree

    def _take(self, given: dict[str, Any]) -> Any:
        from homeport.decide.trying import Hidden
        from homeport.wiring import find_config, read_config

        path = find_config(self._options.folder)
        if path is None:
            raise UsageFault("a try needs the project's checkout", where=self._options.folder, code="no-checkout",
                             next="homeport -C CHECKOUT try")  # fmt: skip
        person = Person(name=str(given.get("name", "")), email=str(given.get("email", "")))
        taken = self.tree.take(person, str(given.get("message", "")), Hidden(read_config(path)))
        told = msgspec.structs.replace(taken, changed=(), nested=tuple(map(printable, taken.nested)))
        path = self._made(taken.sha, [taken.base])
        if os.path.getsize(path) > SENT_ALONG:
            return msgspec.to_builtins(told)
        return {**msgspec.to_builtins(told), "pack": _text(path)}

    def _made(self, commit: str, have: list[str]) -> str:
        if self._packed is None or self._packed[:2] != (commit, have):
            self._packed = commit, have, self.tree.packed(commit, have)
        return self._packed[2]

    def _pack(self, given: dict[str, Any]) -> str:
        """Raises Refused (code `too-long`) for more than `MOST_SENT` bytes."""
        path = self._made(str(given.get("commit")), [str(sha) for sha in given.get("have", ())])
        if os.path.getsize(path) > MOST_SENT:
            raise Refused("the working tree differs by more than can be sent", where=self.tree.top, code="too-long",
                          next="commit and push, then deploy a branch")  # fmt: skip
        return _text(path)

    def _built(self, asked: str, given: dict[str, Any]) -> Any:
        """About outputs that were built in this checkout: the commit, or the outputs themselves."""
        from homeport.model.bringing import Wanted
        from homeport.wiring_hosts import outputs_here

        here = outputs_here(self._options.folder)
        try:
            if asked == "built-head":
                return here.head()
            commit = here.take(str(given.get("sha")), msgspec.convert(given.get("wanted"), dict[str, Wanted]))
            return {"commit": commit, "pack": base64.b64encode(here.packed()).decode("ascii")}
        finally:
            here.close()


def _text(path: str) -> str:
    with open(path, "rb") as file:
        return base64.b64encode(file.read()).decode("ascii")


def watch_there(options: Options, places: tuple[Place, ...]) -> int:
    """A try now and one at every save, on every host; Ctrl-C ends it. Ends with the first try's code when that one is
    refused; a connection that breaks at a later one is told, and made anew for the next save."""
    from homeport.cli.remoting import run_there
    from homeport.flow.trying import saves

    options.words = tuple(word for word in options.words if word != "--watch")
    answers = TreeAnswers(options)
    watch = answers.tree.watch()
    try:
        code = run_there(options, places)
        if code == 3 or options.interrupted:
            return code
        options.note(f"watching {watch.folders} folders (Ctrl-C ends it)")
        for saved in saves(answers.tree, watch):
            if _at_save(options, places) == 0:
                options.note(f"live and verified {time.time() - saved:.2f} s after the save")
            if options.interrupted:
                break
    except KeyboardInterrupt:
        click.echo("", err=True)
    finally:
        watch.close()
        answers.close()
    return 0


def _at_save(options: Options, places: tuple[Place, ...]) -> int:
    """The exit code of the try of one save."""
    from homeport.cli.main import told
    from homeport.cli.remoting import run_there

    try:
        return run_there(options, places)
    except InfrastructureFault as fault:
        if fault.code not in ("connection", "connect"):
            raise
        code = told(options.json, fault, fault.exit_code)
        options.note("still watching: the next save is tried over a new connection (Ctrl-C ends it)")
        return code
