"""One verb on several hosts: turn by turn, and side by side within a turn. Each host is a command of its own."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress

import click

from homeport.cli.options import Options
from homeport.decide.fleet import waves
from homeport.model.errors import HomeportError
from homeport.model.remote import Place, Talk


def turns(options: Options, places: Sequence[Place]) -> list[list[Place]]:
    """The hosts in the order that the environment's `strategy` gives them."""
    from homeport.wiring import find_config, read_config

    verb, path = options.words[0], find_config(options.folder) if len(places) > 1 else None
    if path is None:
        return [[place] for place in places]
    config = read_config(path)
    migrates = config.migrate is not None and verb != "restart"
    return waves(places, config.environments[places[0].environment].strategy, verb, migrates=migrates)


def tip(options: Options, place: Place) -> str | None:
    """The commit that a deploy without a ref would bring now, asked from one host for all of them; None when that cannot be
    told: then each host says why."""
    from homeport.cli.remoting import ask_there

    with suppress(HomeportError):
        found = ask_there(options, place, ["plan"], lambda _: None).get("to")
        return found if isinstance(found, str) else None
    return None


def side_by_side(options: Options, places: Sequence[Place], words: Sequence[str]) -> dict[str, int]:
    """The exit code of each host; only that of the first without a connection, and then nothing was begun.

    What they say comes line by line, with the host before it; one that fails stops nobody. Ctrl-C asks all of them to
    cancel, a second one leaves them to themselves.
    """
    from homeport.wiring_hosts import ssh_host

    for place in places:
        try:
            ssh_host(place).connect()
        except HomeportError as fault:
            from homeport.cli.main import told

            return {place.host: told(options.json, fault, fault.exit_code)}
    width, codes, speaking = max(len(place.host) for place in places), dict[str, int](), threading.Lock()

    def say(place: Place, line: str, err: bool = False) -> None:
        with speaking:
            click.echo(line if options.json and not err else f"{place.host:<{width}}  {line}", err=err)
            sys.stdout.flush()

    def hear(place: Place, talk: Talk) -> None:
        for line in talk.lines():
            say(place, line.decode("utf-8", "replace").rstrip("\n"))
        codes[place.host], errors = talk.ended()
        for complaint in errors.splitlines():
            say(place, complaint, err=True)

    with ExitStack() as running:
        talks = [running.enter_context(_command(options, place, words)) for place in places]
        with _Interrupted(options, talks):
            hearing = [threading.Thread(target=hear, args=pair) for pair in zip(places, talks, strict=True)]
            for one in hearing:
                one.start()
            for one in hearing:
                one.join()
    return codes


def _command(options: Options, place: Place, words: Sequence[str]) -> AbstractContextManager[Talk]:
    from homeport.wiring_itself import itself

    flags = {"--json": options.json, "--quiet": options.quiet, "--verbose": options.verbose}
    loud = [flag for flag, on in flags.items() if on]
    named = ["-C", options.folder, "-e", place.environment, "--host", place.host]
    return itself([*named, *loud, *words])


class _Interrupted:
    """Within it, Ctrl-C reaches every host's command, as often as it is pressed."""

    def __init__(self, options: Options, talks: Sequence[Talk]) -> None:
        self._options, self._talks = options, talks
        self._before: Callable[..., object] | int | None = None

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGINT, self._pressed)

    def _pressed(self, number: int, frame: object) -> None:
        del number, frame
        if not self._options.interrupted and not self._options.json:
            click.echo("homeport: cancelling everywhere, and waiting for the undo (Ctrl-C again leaves)", err=True)
        self._options.interrupted = True
        for talk in self._talks:
            talk.interrupt()

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)


def summed_up(options: Options, verb: str, codes: dict[str, int], left: Sequence[Place]) -> None:
    """Says, when something failed, where the verb was done, where it was not, and where nothing was begun."""
    failed = [host for host, code in codes.items() if code]
    done = [host for host, code in codes.items() if not code]
    if not failed or len(codes) + len(left) == 1:
        return
    parts = [f"stopped at {', '.join(failed)}", *([f"done on {', '.join(done)}"] if done else []),
             *([f"not done on {', '.join(place.host for place in left)}"] if left else [])]  # fmt: skip
    named = f"-e {options.environment} " if options.environment else ""
    click.echo(f"homeport: {verb} {'; '.join(parts)}\n  next: homeport {named}--host {failed[0]} history", err=True)
