"""Lines of authorized_keys that bind an ssh key to a token. Pure: texts in, texts out; lines of others stay as they are."""

from __future__ import annotations

import base64
import binascii
import re
import shlex
from collections.abc import Collection, Iterator, Sequence

from msgspec import Struct

from homeport.model.config import BoundKey
from homeport.model.errors import UsageFault

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
"""Names of keys and of tokens in host.toml."""
_KINDS = r"ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)|sk-(?:ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com"
_PUBLIC = re.compile(rf"({_KINDS})[ \t]+([A-Za-z0-9+/]+={{0,2}})(?:[ \t].*)?", re.ASCII)
_WORD = re.compile(r'(?:"(?:\\"|[^"])*"|[^\s"])+')
"""A word of a line; a quoted part may hold spaces, and `\\"`."""
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
"""sshd ends a line at a newline, and at nothing else that Python takes for an end."""
_OURS = re.compile(r"-p (\S+) -e (\S+) ssh-entry --token (\S+) --key (\S+)")
LARGEST = 16_384
"""Characters of a file with one public key."""


class Entry(Struct, frozen=True, kw_only=True):
    """A key of host.toml as authorized_keys is to have it."""

    name: str
    token: str
    public: str
    """Kind and key, as `public_key` gives them."""


class Merged(Struct, frozen=True, kw_only=True):
    """authorized_keys with all of our lines."""

    text: str
    written: list[str]
    """The lines that are new."""
    removed: list[str]
    """Names of the keys whose lines went."""
    taken: list[tuple[str, int]]
    """Keys that stand in a line of somebody else's, which sshd reads first: (name, number of the line)."""


class _Line(Struct, frozen=True, kw_only=True):
    public: str
    ours: tuple[str, str, str, str] | None
    """(project, environment, token, name) of a line that `homeport setup` wrote."""


def faults(name: str, bound: BoundKey) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong with a table of host.toml: (key in it, why)."""
    for key, value in ((), name), (("token",), bound.token):
        if not NAME.fullmatch(value):
            yield key, "not a name: 1 to 64 letters, digits, `.`, `_`, `-`"
    try:
        if bound.public is not None:
            public_key(bound.public)
    except UsageFault as fault:
        yield ("public",), fault.what


def public_key(text: str) -> str:
    """Kind and key of a `.pub` file. Raises UsageFault (code `public-key`); a secret is never repeated."""
    if "PRIVATE KEY" in text:
        raise _no_key("that is a private key, which stays where it is")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found = _PUBLIC.fullmatch(lines[0]) if len(lines) == 1 and len(text) <= LARGEST else None
    if found is None or not _whole(found[1], found[2]):
        raise _no_key("that is not one public key of OpenSSH")
    return f"{found[1]} {found[2]}"


def _whole(kind: str, encoded: str) -> bool:
    """Whether the key says itself what kind it is."""
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return False
    return raw[4 : 4 + int.from_bytes(raw[:4], "big")] == kind.encode() and len(raw) > len(kind) + 8


def _no_key(what: str) -> UsageFault:
    return UsageFault(what, where="--key", next="homeport setup --key FILE.pub --token NAME", code="public-key")


def command_for(program: str, project: str, environment: str, entry: Entry) -> str:
    """What sshd runs for the key, whatever was asked for."""
    return (f"{shlex.quote(program)} -p {project} -e {environment} ssh-entry --token {entry.token} "
            f"--key {entry.name}")  # fmt: skip


def line_for(program: str, project: str, environment: str, entry: Entry) -> str:
    command = command_for(program, project, environment, entry).replace('"', '\\"')
    return f'restrict,command="{command}" {entry.public} {entry.name}'


def merged(text: str, program: str, project: str, environment: str, wanted: Sequence[Entry],
           known: Collection[str]) -> Merged:  # fmt: skip
    """The file with a line for each of `wanted`, without those of this project and environment whose key is not in
    `known` any more. A key that is bound for another environment already keeps that line."""
    lines, written, removed, taken = [], [], [], []
    left = {entry.public: entry for entry in wanted}
    for number, raw in enumerate(_LINE.findall(text), 1):
        line = _read(raw)
        ours = line.ours if line is not None else None
        entry = left.pop(line.public, None) if line is not None else None
        if ours is None or ours[:2] != (project, environment):
            if entry is not None and (ours is None or ours[3] != entry.name):
                taken.append((entry.name, number))
            lines.append(raw)
        elif entry is not None:
            fresh = line_for(program, project, environment, entry)
            if raw.rstrip("\r\n") != fresh:
                written.append(fresh)
            lines.append(fresh + "\n")
        elif ours[3] in known and all(line.public != one.public for one in wanted if line is not None):
            lines.append(raw)
        else:
            removed.append(ours[3])
    added = [line_for(program, project, environment, entry) for entry in left.values()]
    before = "".join(lines)
    glue = "\n" if added and before and not before.endswith("\n") else ""
    return Merged(text=before + glue + "".join(f"{line}\n" for line in added), written=[*written, *added],
                  removed=removed, taken=taken)  # fmt: skip


def has(text: str, entry: Entry) -> bool:
    """Whether a line binds that key by that name, for whichever environment."""
    lines = map(_read, _LINE.findall(text))
    return any(line.public == entry.public and line.ours is not None and line.ours[3] == entry.name
               for line in lines if line is not None)  # fmt: skip


def _read(raw: str) -> _Line | None:
    """The key of a line, and whose line it is; None for a comment, or what sshd does not read as a key."""
    text = raw.strip()
    if not text or text.startswith("#"):
        return None
    words = _WORD.findall(text)
    for position in range(min(2, len(words) - 1)):
        if re.fullmatch(_KINDS, words[position]):
            options = words[0] if position else ""
            found = _OURS.search(options) if 'command="' in options else None
            ours = (found[1], found[2], found[3], found[4].rstrip('"')) if found else None
            return _Line(public=f"{words[position]} {words[position + 1]}", ours=ours)
    return None
