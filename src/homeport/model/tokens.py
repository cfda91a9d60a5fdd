"""Tokens: who may ask for what, over the API and over ssh. The token itself is shown once and kept nowhere."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, Protocol

from msgspec import Struct

TokenKind = Literal["person", "agent", "forge"]
RIGHTS = ("read", "deploy", "try", "adopt", "hold", "confirm")
"""`deploy` is written with its scope: `deploy:SCOPE`, or `deploy:*` for everything."""
EVERY_RIGHT = ("read", "deploy:*", "try", "adopt", "hold", "confirm")


class Token(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    name: str
    kind: TokenKind
    rights: tuple[str, ...]
    digest: str
    by: str
    at: str
    revoked: str | None = None
    """When; a revoked name is never given out again."""

    def may(self, right: str) -> bool:
        """Whether the rights hold `right`; `deploy:SCOPE` is held by itself and by `deploy:*`."""
        return may(self.rights, right)


def may(rights: Collection[str], right: str) -> bool:
    """`deploy` alone asks for any right to deploy; what exactly is asked again when the scope is known."""
    if right == "deploy":
        return any(held.startswith("deploy:") for held in rights)
    return right in rights or (right.startswith("deploy:") and "deploy:*" in rights)


class Tokens(Protocol):
    """The tokens of one environment, in its database."""

    def add(self, token: Token) -> bool:
        """False when the name was given out before."""
        ...

    def named(self, name: str) -> Token | None: ...
    def with_digest(self, digest: str) -> Token | None: ...
    def all(self) -> list[Token]:
        """By name; revoked ones too."""
        ...

    def revoke(self, name: str, at: str) -> bool:
        """False when there is no such token, or it was revoked before."""
        ...
