"""What to tell when a host did not say how a verb ended: the connection broke, or nothing there understands homeport."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from homeport import __version__
from homeport.cli.calling import looks
from homeport.model.errors import ConfigFault, Failed, HomeportError, InfrastructureFault
from homeport.model.remote import Place

if TYPE_CHECKING:
    from homeport.cli.remoting import Heard

LOST = 255
"""The status of an ssh whose connection broke."""
DEPLOYING = frozenset({"deploy", "try", "rollback", "rebuild", "restart", "cancel", "migrate", "converge"})
"""Verbs that show a deploy, which goes on without us."""
LOOK_AFTER = {"adopt": "edits", "accept": "edits", "discard": "drift", "record": "drift", "rescue": "drift",
              "hostfile": "hostfile list", "setup": "setup", "token": "token list", "db": "db check",
              "notify": "notify test"}  # fmt: skip
"""How to see what came of a verb whose connection broke; setup is its own."""
GROUPS = frozenset({"rescue", "hostfile", "token", "db", "notify"})
"""Verbs that are named with the word after them."""


def follow(place: Place, heard: Heard) -> str:
    return f"homeport -e {place.environment} --host {place.host} logs -f {heard.deploy}"


def broken(never: Callable[[str], HomeportError | None], place: Place, heard: Heard, asked: list[str], code: int,
            said: str) -> HomeportError:  # fmt: skip
    """What to tell when the host did not say how it ended. `never` tells why there was no connection at all."""
    verb = asked[0]
    if not heard.greeted:
        if code != LOST:
            return _unlike_homeport(place, heard, code, said)
        refused = never(said)
        if refused is not None:
            return refused
    base = f"homeport -e {place.environment} --host {place.host}"
    if verb in DEPLOYING and heard.deploy is not None:
        what, next = f"the connection broke; {place.host} takes deploy {heard.deploy} to its end", follow(place, heard)
    elif looks(asked):
        what, next = "the connection broke; nothing was to be changed", f"{base} {shlex.join(asked)}"
    elif verb in DEPLOYING:
        what, next = f"the connection broke before {place.host} said whether it took the request", f"{base} history"
    else:
        after, name = LOOK_AFTER.get(verb, "status"), " ".join(asked[:2]) if verb in GROUPS else verb
        what = f"the connection broke; what {place.host} began with {name} it ends"
        next = " ".join([base, after, *(_host_files(asked) if verb == "hostfile" else [])])
    return InfrastructureFault(what, where=place.destination, next=next, code="connection")


def _host_files(asked: list[str]) -> list[str]:
    """The one host file that the words name, whose history then tells what came of it; nothing where they name more."""
    import click

    from homeport.cli.hosting import hostfile

    with_value = {name for verb in hostfile.commands.values() for option in verb.params
                  if isinstance(option, click.Option) and not option.is_flag for name in option.opts}  # fmt: skip
    words = ["", *asked[2:]]
    named = [word for before, word in pairwise(words) if before not in with_value and not word.startswith("-")]
    return [shlex.quote(word) for word in named] if len(named) == 1 else []


def _unlike_homeport(place: Place, heard: Heard, code: int, said: str) -> HomeportError:
    """What answered, or ended at once, is no homeport that this one understands."""
    setup = f"homeport -e {place.environment} --host {place.host} setup"
    if code == 127:
        return ConfigFault(f"{place.host} has no homeport", where=place.destination, next=setup, code="no-program")
    if "--caller" in said:
        return other_version(place, "an older homeport", newer=False)
    words = said.strip().splitlines()[-1:] or heard.noise[-1:]
    return Failed(f"{place.host} did not answer as homeport does: {' '.join(words) or f'status {code}'}",
                  where=place.destination, next=setup, code="no-answer")  # fmt: skip


def other_version(place: Place, version: str, *, newer: bool) -> ConfigFault:
    mend = "pipx upgrade homeport" if newer else f"homeport -e {place.environment} --host {place.host} setup"
    return ConfigFault(f"{place.host} has {version}, and this is {__version__}: they do not understand each other",
                       where=place.destination, next=mend, code="version")  # fmt: skip
