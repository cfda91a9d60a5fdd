"""The near side of a command over ssh: runs the same verb on the host and shows what it says as if it were here."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click
import msgspec

from homeport import __version__
from homeport.cli.breaking import DEPLOYING, LOST, broken, follow, other_version
from homeport.cli.calling import looks
from homeport.cli.options import Options
from homeport.cli.show.events import Shown
from homeport.cli.show.words import several
from homeport.model.errors import Failed, HomeportError, InfrastructureFault, UsageFault
from homeport.model.remote import OWN_TYPES, PROTOCOL, Caller, Hello, Place, Spoken, ToldFault

if TYPE_CHECKING:
    from homeport.cli.sending import TreeAnswers

HERE_ONLY = frozenset({"serve", "supervise", "mcp", "demo", "ssh-entry"})
"""Verbs of a machine itself."""
AT_TERMINAL = frozenset({"shell", "run"})
"""Verbs that are a conversation of the person with a program there."""
SIGNING = frozenset({"adopt", "try", "hostfile"})
"""Verbs that make a commit of the person's."""


@dataclass
class Heard:
    """What one host said so far."""

    greeted: bool = False
    deploy: str | None = None
    fault: ToldFault | None = None
    noise: list[str] = field(default_factory=list)
    cancels: int = 0
    waits: bool = False
    """It would wait for a word before it does anything."""
    unconfirmed: tuple[tuple[str, str], ...] = ()
    """Rules that want a person's word first."""


def run_there(options: Options, places: tuple[Place, ...]) -> int:
    """Carries the verb out on each host in order; the exit code is the first that is not 0.

    A verb that changes something stops at the first host where it does not succeed.
    """
    verb = options.words[0]
    if verb in AT_TERMINAL:
        return _at_terminal(options, places)
    if verb in HERE_ONLY:
        raise UsageFault(f"{verb} works on the machine itself", where=f"environment {places[0].environment}",
                         next=f"ssh {places[0].destination}", code="usage")  # fmt: skip
    if verb == "try" and "--watch" in options.words:
        from homeport.cli.sending import watch_there

        return watch_there(options, places)
    if len(places) == 1:
        return _confirmed_on(options, places[0], list(options.words))[0]
    return _by_turns(options, places)


def _by_turns(options: Options, places: tuple[Place, ...]) -> int:
    from homeport.cli import fleet

    verb, words, codes = options.words[0], list(options.words), dict[str, int]()
    for turn in fleet.turns(options, places):
        if len(turn) > 1:
            if verb == "deploy" and not codes:
                words = _of_one_commit(words, fleet.tip(options, turn[0]), options)
            codes.update(fleet.side_by_side(options, turn, words))
        else:
            if not options.json and not options.quiet:
                click.echo(f"== {turn[0].host}")
            codes[turn[0].host], words = _in_turn(options, turn[0], words)
        if any(codes.values()) and not looks(options.words):
            break
    if not looks(options.words):
        fleet.summed_up(options, verb, codes, [place for place in places if place.host not in codes])
    return next((code for place in places if (code := codes.get(place.host, 0))), 0)


def _in_turn(options: Options, place: Place, words: list[str]) -> tuple[int, list[str]]:
    """(exit code, the words for the next host): one that cannot be reached is told, and is no reason to forget the
    others."""
    try:
        code, sha = _confirmed_on(options, place, words)
    except HomeportError as fault:
        from homeport.cli.main import told

        return told(options.json, fault, fault.exit_code), words
    return code, _of_one_commit(words, sha if words[0] == "deploy" else None, options)


def _of_one_commit(words: list[str], sha: str | None, options: Options) -> list[str]:
    """The words of a deploy that say the commit, where they said none: all hosts get the same."""
    said = "--ref" in words or any(word.startswith("--ref=") for word in words)
    return words if sha is None or said else _pinned(words, sha, options)


def _at_terminal(options: Options, places: tuple[Place, ...]) -> int:
    """Over ssh with the person's own terminal; on the first host, where none is named."""
    from homeport.wiring_hosts import ssh_host
    from homeport.wiring_person import actor, at_terminal

    if actor().kind != "person":
        raise UsageFault(f"{options.words[0]} is for a person", where=places[0].host, code="person-only",
                         next="write what is needed into homeport.toml as an action or a migration")  # fmt: skip
    place = places[0]
    host = ssh_host(place)
    host.connect()
    words = ["-p", place.project, "-e", place.environment, "--host", place.host, *options.words]
    code = at_terminal(host.at_terminal(words))
    if code == LOST:
        what = "ssh ended with 255: the connection broke, and what runs there may go on; or the program itself ended so"
        look = f"homeport -e {place.environment} --host {place.host} audit -n 1   (what was run, when and by whom)"
        _say(InfrastructureFault(what, where=place.destination, next=look, code="connection"))
    return code


def _pinned(words: list[str], sha: str, options: Options) -> list[str]:
    """The same deploy of the commit that the first host got, so that the branch may move on meanwhile."""
    from homeport.wiring import find_config, read_config

    path = find_config(options.folder)
    services = read_config(path).services if path else {}
    named = [w for w in words[1:] if not w.startswith("-")]
    return words if named and named[0] not in services else [words[0], "--ref", sha, *words[1:]]


def _confirmed_on(options: Options, place: Place, words: list[str]) -> tuple[int, str | None]:
    """As `_on`; what rules of the host want confirmed is asked for at this terminal, and the verb run once more."""
    while True:
        heard = Heard()
        code, sha = _on(options, place, words, heard)
        if not heard.unconfirmed:
            return code, sha
        from homeport.cli.confirming import asked_for, person_here

        if not person_here(options):
            return code, sha
        words = asked_for(words, heard.unconfirmed)


def _on(options: Options, place: Place, words: list[str], heard: Heard) -> tuple[int, str | None]:
    """(exit code, the deployed commit) of the verb on one host."""
    from homeport.wiring_hosts import ssh_host

    host = ssh_host(place)
    host.connect()
    tree = _tree_answers(options) if words[0] in ("try", "deploy") else None
    shown = Shown(options.json, options.quiet, options.verbose, sys.stdout, sys.stderr)
    asked, guessed = ([*before, *words] for before in _before(options, place))
    try:
        for program in host.places():
            begun = host.under_way(guessed, program)
            with begun or host.talk(asked, program) as there:
                hear = _Hearing(options, place, heard, shown, there.say)
                hear.early = begun is not None
                hear.answered = tree if words[0] != "hostfile" else _contents(words)
                with _interruptible(options, heard, there.say, stops=not looks(words)):
                    for line in there.lines():
                        hear(line)
                    code, said = there.ended()
            if heard.greeted and heard.waits:
                host.next_time(guessed, program)
            if heard.greeted or code != 127:
                break
    except KeyboardInterrupt:
        if heard.deploy is None or looks(words):
            raise
        options.interrupted = True
        shown.close()
        click.echo(f"\nhomeport: the deploy goes on without this terminal\n  next: {follow(place, heard)}", err=True)
        return 6, None
    finally:
        shown.close()
        if tree is not None:
            tree.close()
    if heard.fault is not None:
        heard.unconfirmed = heard.fault.unconfirmed
        return _told(heard.fault), None
    if not heard.greeted or (code == LOST and shown.done is None):
        raise broken(host.never_there, place, heard, words, code, said)
    if said:
        click.echo(f"{place.host}: {several(said)}", err=True)
    heard.unconfirmed = shown.done.unconfirmed if shown.done else ()
    return code, shown.done.sha if shown.done else None


def _tree_answers(options: Options) -> TreeAnswers:
    from homeport.cli.sending import TreeAnswers

    return TreeAnswers(options)


def ask_there(options: Options, place: Place, words: list[str],
              answered: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:  # fmt: skip
    """The answer of a verb on one host, for a verb that goes on with it here; `answered` answers its questions.

    Raises what the host says went wrong, and what `broken` tells.
    """
    from homeport.wiring_hosts import ssh_host

    host, heard, found = ssh_host(place), Heard(), []
    host.connect()
    shown = Shown(options.json, options.quiet, options.verbose, sys.stdout, sys.stderr)
    asked = [*_before(options, place)[0], *words]
    for program in host.places():
        with host.talk(asked, program) as there:
            hear = _Hearing(options, place, heard, shown, there.say)
            hear.answered, hear.answer = answered, lambda said, _: found.append(said)
            for line in there.lines():
                hear(line)
            code, said = there.ended()
        if heard.greeted or code != 127:
            break
    if heard.fault is not None:
        raise fault_of(heard.fault)
    if not found:
        raise broken(host.never_there, place, heard, words, code, said)
    return dict(found[-1])


def fault_of(told: ToldFault) -> HomeportError:
    """An error of another machine as one of ours, with its exit code."""
    fault = HomeportError(told.what, where=told.where, next=told.next, code=told.code)
    fault.exit_code = told.exit_code
    return fault


def _before(options: Options, place: Place) -> tuple[list[str], list[str]]:
    """What stands before the verb on the host: when it is asked for, and when that is only guessed."""
    from homeport.cli.deploying import own_run
    from homeport.wiring import actor, identity

    signed = identity(options.folder) if options.words[0] in SIGNING else None
    asking = actor()
    caller = Caller(
        protocol=PROTOCOL, version=__version__, by=f"{asking.name}@{socket.gethostname()}", kind=asking.kind,
        run=own_run(), author=(signed.name, signed.email) if signed else None, addresses=place.addresses,
    )  # fmt: skip
    named = ["-p", place.project, "-e", place.environment, "--host", place.host]
    asked, guessed = (["--caller", msgspec.json.encode(it).decode(), *named, "--json"]
                      for it in (caller, msgspec.structs.replace(caller, waits=True)))  # fmt: skip
    return asked, guessed


def _contents(words: list[str]) -> Callable[[dict[str, Any]], Any]:
    from homeport.cli.contents import answerer

    return answerer(words)


class _Hearing:
    """Takes the host's lines: its own kinds are acted upon, events are shown as they come, the answer is rendered."""

    def __init__(self, options: Options, place: Place, heard: Heard, shown: Shown, say: Callable[[bytes], None]) -> None:
        self._options, self._place, self._heard, self._shown, self._say = options, place, heard, shown, say
        self.answered: Callable[[dict[str, Any]], Any] | None = None
        """Answers questions instead of the person."""
        self.early = False
        """It was started on a guess, which was right, and waits for the word."""
        self.answer: Callable[[dict[str, Any], bytes], None] = self._show
        """What is done with the verb's answer."""
        words = options.words
        self._live = words[0] in DEPLOYING or (words[0] == "logs" and not {"-f", "--follow"}.isdisjoint(words))

    def __call__(self, line: bytes) -> None:
        try:
            said = msgspec.json.decode(line)
            kind = said.get("type", "") if isinstance(said, dict) else None
        except (msgspec.DecodeError, UnicodeDecodeError):
            kind = None
        try:
            if not self._heard.greeted:
                self._greet(line, kind)
                return
            if kind in OWN_TYPES:
                self._act(str(kind), said, line)
                return
        except msgspec.ValidationError as fault:
            raise Failed(f"{self._place.host} did not answer as homeport does: {fault}", code="no-answer",
                         where=self._place.destination, next=f"ssh {self._place.destination}") from fault  # fmt: skip
        if kind is not None and str(kind).startswith("deploy.") and self._live:
            self._heard.deploy = said.get("deployId") or self._heard.deploy
            self._shown.feed(line.rstrip(b"\n"))
        elif kind is not None:
            self.answer(said, line)

    def _greet(self, line: bytes, kind: object) -> None:
        if kind == "error":
            self._act("error", msgspec.json.decode(line), line)
            return
        if kind != "hello":
            self._heard.noise = [*self._heard.noise, line.decode("utf-8", "replace").strip()][-3:]
            return
        hello = msgspec.json.decode(line, type=Hello)
        if hello.protocol != PROTOCOL:
            raise other_version(self._place, f"homeport {hello.version}", newer=hello.protocol > PROTOCOL)
        self._heard.greeted, self._heard.waits = True, hello.waits
        if self.early:
            self._say(msgspec.json.encode(Spoken(go=True)))

    def _act(self, kind: str, said: dict[str, Any], line: bytes) -> None:
        if kind == "error":
            self._heard.fault = msgspec.convert(said, ToldFault)
            if self._options.json:
                click.echo(line.decode("utf-8", "replace").rstrip("\n"))
        elif kind == "note":
            self._options.note(str(said.get("text", "")))
        elif kind == "asked":
            self._heard.deploy = said.get("deployId")
        elif kind == "question":
            from homeport.cli.questions import answered

            self._say(msgspec.json.encode(Spoken(answer=(self.answered or answered)(said))))

    def _show(self, said: dict[str, Any], line: bytes) -> None:
        from homeport.cli.show.answers import shown

        if self._options.json:
            click.echo(line.decode("utf-8", "replace").rstrip("\n"))
            sys.stdout.flush()
        else:
            shown(self._options, said)


@contextmanager
def _interruptible(options: Options, heard: Heard, say: Callable[[bytes], None], *, stops: bool) -> Iterator[None]:
    """Ctrl-C asks the host to cancel; a second one leaves. A verb that only looks ends at once."""

    def interrupted(number: int, frame: object) -> None:
        del number, frame
        heard.cancels += 1
        options.interrupted = True
        if not stops or heard.cancels > 1:
            raise KeyboardInterrupt
        say(msgspec.json.encode(Spoken(cancel=True)))

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _told(fault: ToldFault) -> int:
    _say(fault_of(fault))
    return fault.exit_code


def _say(fault: HomeportError) -> None:
    from homeport.cli.show.results import error

    click.echo(error(fault).rstrip("\n"), err=True)
