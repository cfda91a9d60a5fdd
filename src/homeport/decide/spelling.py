"""How single values of a configuration are spelled: names, paths, patterns, branches, addresses, commands.

Every function yields at most one (path of the key, what is wrong).
"""

from __future__ import annotations

import posixpath
import re
import signal
from collections.abc import Iterator, Mapping

from homeport.decide.locate import Path

Fault = tuple[Path, str]

NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"
SIGNALS = tuple(member.name for member in signal.Signals)
_NAME = re.compile(NAME)
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?|[0-9]{1,10}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NOT_IN_BRANCH = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_SSH = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*@)?([A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


def name(value: str, path: Path) -> Iterator[Fault]:
    if not _NAME.fullmatch(value):
        yield path, f"`{value}` is not a name: 1 to 63 of a-z, 0-9, `.`, `_`, `-`, starting with a letter or digit"


def plain(value: str, path: Path) -> Iterator[Fault]:
    """Text that ends up as one argument of a program."""
    if not value or _CONTROL.search(value):
        yield path, "must not be empty or hold control characters"
    elif value.startswith("-"):
        yield path, "must not start with `-`"


def branch(value: str, path: Path) -> Iterator[Fault]:
    """The rules of git check-ref-format, and nothing a command line could take for an option."""
    parts = value.split("/")
    if (
        not value or value.startswith("-") or value in ("@", "HEAD") or value.endswith(".")
        or _NOT_IN_BRANCH.search(value)
        or any(not part or part.startswith(".") or part.endswith(".lock") for part in parts)
    ):  # fmt: skip
        yield path, f"`{value}` is not a branch name"
    elif value.startswith("refs/"):
        yield path, f"write the branch alone: `{value.removeprefix('refs/heads/')}`"


def absolute(value: str, path: Path, root_too: bool = False) -> Iterator[Fault]:
    """An absolute folder or file as the kernel would print it; `/` only with `root_too`."""
    normal = "/" + posixpath.normpath(value).lstrip("/")
    if _CONTROL.search(value):
        yield path, "must not hold control characters"
    elif not value.startswith("/"):
        yield path, f"`{value}` must be an absolute path"
    elif value != normal:
        yield path, f"`{value}` must be written as `{normal}`"
    elif value == "/" and not root_too:
        yield path, "`/` cannot be used here"


def inside(value: str, path: Path, whole: bool = False) -> Iterator[Fault]:
    """A path below the repository or a live folder; with `whole`, `.` is the folder itself."""
    if whole and value in (".", ""):
        return
    plain_form = posixpath.normpath(value)
    if _CONTROL.search(value):
        yield path, "must not hold control characters"
    elif not value or value.startswith("/") or ".." in value.split("/") or plain_form == ".":
        yield path, f"`{value}` must be a relative path without `..`"
    elif value.rstrip("/") != plain_form:
        yield path, f"`{value}` must be written as `{plain_form}`"
    elif ".git" in value.split("/"):
        yield path, f"`{value}` lies in git's own folder"


def anywhere(value: str, path: Path) -> Iterator[Fault]:
    """An absolute path, or one below the live folder."""
    if value.startswith("/"):
        yield from absolute(value, path)
    else:
        yield from inside(value, path, whole=True)


def pattern(value: str, path: Path) -> Iterator[Fault]:
    """One gitignore pattern that can mean something."""
    if not value.strip() or _CONTROL.search(value):
        yield path, "a pattern must not be empty or hold control characters"
    elif value.startswith("!"):
        yield path, f"`{value}`: patterns that begin with `!` are not taken; use `unprotect` or a narrower pattern"
    elif value.startswith("#"):
        yield path, f"`{value}` is a comment to git; write `\\{value}` for a name that begins with `#`"
    elif ".." in value.split("/"):
        yield path, f"`{value}` can never match: paths have no `..`"


def patterns(values: list[str], path: Path) -> Iterator[Fault]:
    for position, value in enumerate(values):
        yield from pattern(value, (*path, position))


def user(value: str, path: Path) -> Iterator[Fault]:
    if not _USER.fullmatch(value):
        yield path, f"`{value}` is not the name of a user or group"


def variables(values: Mapping[str, str], path: Path) -> Iterator[Fault]:
    for key, value in values.items():
        if not _VARIABLE.fullmatch(key):
            yield (*path, key), f"`{key}` is not the name of an environment variable"
        elif "\0" in value:
            yield (*path, key), "must not hold a NUL character"


def command(value: str | list[str] | None, path: Path) -> Iterator[Fault]:
    if value is None:
        return
    words = [value] if isinstance(value, str) else value
    if not words or not words[0].strip():
        yield path, "the command is empty"
    elif any("\0" in word for word in words):
        yield path, "must not hold a NUL character"


def url(value: str, path: Path) -> Iterator[Fault]:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(value)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or _CONTROL.search(value) or " " in value:
        yield path, f"`{value}` must be a URL such as http://127.0.0.1:3000/health"


def address(value: str, path: Path) -> Iterator[Fault]:
    found = _ADDRESS.fullmatch(value)
    if found is None or not 0 < int(found[2]) < 65536:
        yield path, f"`{value}` must be an address such as 127.0.0.1:5432"


def ip(value: str, path: Path) -> Iterator[Fault]:
    from ipaddress import ip_address

    try:
        ip_address(value)
    except ValueError:
        yield path, f"`{value}` must be an IP address such as 192.0.2.7"


def address_listed(value: str, path: Path) -> Iterator[Fault]:
    from homeport.model.addresses import entry

    try:
        entry(value)
    except ValueError:
        yield path, f"`{value}` must be an address such as 127.0.0.1:8080, or a network such as 10.0.0.0/8"


def ssh(value: str, path: Path) -> Iterator[Fault]:
    found = _SSH.fullmatch(value)
    if found is None or (found[3] and not 0 < int(found[3][1:]) < 65536):
        yield path, f"`{value}` must be written as user@host or user@host:port"
