"""Tokens: made, shown once, checked, revoked. What is stored is their SHA-256, for they are 256 bits of chance."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence

from homeport.flow.site import Site
from homeport.model.errors import Refused, UsageFault
from homeport.model.tokens import RIGHTS, Token, TokenKind

PREFIX = "homeport_"
"""So that scanners for secrets, and people, know one when they see it."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_SCOPE = re.compile(r"\*|[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)


def create(site: Site, name: str, rights: Sequence[str], kind: TokenKind, by: str) -> tuple[str, Token]:
    """(the token, its record). The token is not to be had again.

    Raises UsageFault (codes `token-name`, `bad-right`), Refused (code `token-exists`).
    """
    if not _NAME.fullmatch(name):
        raise UsageFault(f"{name[:80]!r} cannot be the name of a token: letters, digits, `.`, `_` and `-`, at most 64",
                         next="homeport token create NAME --right read", code="token-name")  # fmt: skip
    held = tuple(dict.fromkeys(checked(right, kind) for right in rights))
    if not held:
        raise UsageFault("a token without any right is of no use", where=name, code="bad-right",
                         next=f"homeport token create {name} --right read")  # fmt: skip
    token = PREFIX + secrets.token_urlsafe(32)
    record = Token(name=name, kind=kind, rights=held, digest=digest_of(token), by=by, at=site.clock.now())
    if not site.tokens.add(record):
        raise Refused(f"a token named {name} was given out before", where=f"environment {site.environment}",
                      next=f"homeport token create {name}-2 --right read", code="token-exists")  # fmt: skip
    site.store.audit(by, "token create", f"{name} ({kind}): {' '.join(held)}")
    return token, record


def checked(right: str, kind: TokenKind) -> str:
    """The right as it is stored. Raises UsageFault (code `bad-right`) for one that there is not, or not for that kind."""
    word, colon, scope = right.partition(":")
    fits = word in RIGHTS and (bool(colon) == (word == "deploy")) and (not colon or _SCOPE.fullmatch(scope))
    if not fits:
        raise UsageFault(f"there is no right {right[:80]!r}", where="--right", code="bad-right",
                         next="one of: read, deploy:SCOPE, deploy:*, try, adopt, hold, confirm")  # fmt: skip
    if word == "confirm" and kind != "person":
        raise UsageFault("only a person confirms; an agent or a forge cannot grant itself an exception", code="bad-right",
                         where=f"--kind {kind}", next="leave out --right confirm, or say --kind person")  # fmt: skip
    return right


def presented(site: Site, token: str) -> Token | None:
    """The record of a token that somebody shows; None for one that is not known, or was revoked."""
    if not token.startswith(PREFIX) or len(token) > 200:
        return None
    found = site.tokens.with_digest(digest_of(token))
    return found if found is not None and found.revoked is None else None


def named(site: Site, name: str) -> Token:
    """The record of a token that this host's own files bind to a key. Raises Refused (code `no-token`)."""
    found = site.tokens.named(name)
    if found is None or found.revoked is not None:
        why = "was revoked" if found is not None else "is not known here"
        raise Refused(f"the token {name} {why}", where=f"environment {site.environment}", next="homeport token list",
                      code="no-token")  # fmt: skip
    return found


def revoke(site: Site, name: str, by: str) -> None:
    """From now on nobody is let in with it. Raises Refused (code `no-token`)."""
    if not site.tokens.revoke(named(site, name).name, site.clock.now()):
        raise Refused(f"the token {name} was revoked", where=f"environment {site.environment}",
                      next="homeport token list", code="no-token")  # fmt: skip
    site.store.audit(by, "token revoke", name)


def require(token: Token, right: str) -> None:
    """Raises Refused (code `no-right`) when the token does not hold it."""
    if not token.may(right):
        raise Refused(f"the token {token.name} has no right to {right}", where=f"it has: {' '.join(token.rights)}",
                      next=f"homeport token create NAME --right {right}, by whoever runs this host",
                      code="no-right")  # fmt: skip


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
