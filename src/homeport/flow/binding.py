"""`homeport setup`: ssh keys that are bound to tokens. host.toml says which; authorized_keys is made to say the same."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from homeport.decide import authorizing, hostfile, loading
from homeport.model.errors import InfrastructureFault
from homeport.model.remote import SetupStep
from homeport.model.tokens import Token, Tokens

NAME = "ssh keys"


class Keyring(Protocol):
    """authorized_keys of the user who runs homeport here."""

    path: str

    def read(self) -> str | None: ...
    def write(self, before: str | None, text: str) -> None: ...


class KeyWish(Struct, frozen=True, kw_only=True):
    """A key that is to be bound from now on."""

    token: str
    public: str
    """Kind and key."""


class HostText(Protocol):
    """host.toml, as text."""

    host_file: str

    def read_host_file(self) -> str | None: ...
    def write_host_file(self, text: str) -> None: ...


def bind_keys(machine: HostText, keyring: Keyring, program: str, project: str, environment: str, wish: KeyWish | None,
              tokens: Tokens) -> SetupStep:  # fmt: skip
    """Puts the wish into host.toml, and every key of host.toml into authorized_keys. `done` is empty where there is
    nothing to say.

    Raises InfrastructureFault (codes `authorized-keys`, `host-file`), ConfigFault (code `host-file`).
    """
    if wish is not None and _valid(tokens, wish.token) is None:
        return _no_token(wish.token, environment)
    before = machine.read_host_file() or ""
    text = hostfile.with_bound_key(before, wish.token, wish.public) if wish is not None else before
    keys = loading.load_host(text, machine.host_file).keys
    wanted = [authorizing.Entry(name=name, token=key.token, public=authorizing.public_key(key.public))
              for name, key in keys.items() if key.public is not None]  # fmt: skip
    known = [entry for entry in wanted if _valid(tokens, entry.token) is not None]
    there = _read(keyring, needed=bool(keys))
    made = authorizing.merged(there or "", program, project, environment, known, keys)
    if made.taken:
        name, number = made.taken[0]
        return SetupStep(name=NAME, ok=False, next=f"take that line out, then: homeport -e {environment} setup",
                         done=f"line {number} of {keyring.path} has the key {name} already and lets it in as it says; "
                              "it is not ours to change")  # fmt: skip
    if text != before:
        machine.write_host_file(text)
    if made.text != (there or ""):
        keyring.write(there, made.text)
    return _told(keyring.path, made, known, wanted, tokens, environment, changed=text != before)


def _read(keyring: Keyring, *, needed: bool) -> str | None:
    try:
        return keyring.read()
    except InfrastructureFault:
        if needed:
            raise
        return None


def _told(path: str, made: authorizing.Merged, known: list[authorizing.Entry], wanted: list[authorizing.Entry],
          tokens: Tokens, environment: str, *, changed: bool) -> SetupStep:  # fmt: skip
    strangers = [e for e in wanted if e not in known and not authorizing.has(made.text, e)]
    if strangers:
        return _no_token(strangers[0].token, environment)
    lines = [*made.written, *(f"taken out, for host.toml has it no more: {name}" for name in made.removed)]
    if not lines and not known:
        return SetupStep(name=NAME, ok=True, done="")
    held = [f"{e.name} may: {' '.join(found.rights)}" for e in known if (found := _valid(tokens, e.token)) is not None]
    return SetupStep(name=NAME, ok=True, changed=changed or bool(lines), lines=[*lines, *held],
                     done=f"{len(known)} bound to a token, in {path}")  # fmt: skip


def _valid(tokens: Tokens, name: str) -> Token | None:
    found = tokens.named(name)
    return found if found is not None and found.revoked is None else None


def _no_token(name: str, environment: str) -> SetupStep:
    return SetupStep(name=NAME, ok=False, done=f"environment {environment} has no token {name}; no key is bound to it",
                     next=f"homeport -e {environment} token create {name} --right read, then setup again")  # fmt: skip
