"""What callers send and get, in camelCase. An unknown key is an error, as everywhere in homeport."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Word = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A name or reason on one line."""
Text = Annotated[str, Meta(min_length=1, max_length=2000)]


class _Wanted(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    pass


class SelfDeploy(_Wanted, frozen=True):
    """`POST /api/v1/self/deploy`."""

    scope: Word = "all"
    mode: Literal["commit", "live"] = "commit"
    """The branch's commit, or what was edited in place, as it lies there."""
    request_id: Word | None = None
    """The caller's own: asking again with it finds the same deploy."""
    requested_by: Word | None = None
    """The platform's user whose clients get the events; `__self__`: nobody's. Default: the token's name."""
    session_id: Word | None = None
    itself: bool = False
    """Restart the supervisor itself too, when everything else is up; with scope `all` only."""


class DeployWanted(_Wanted, frozen=True):
    """`POST /api/v1/deploys`."""

    kind: Literal["commit", "live", "rollback", "restart"] = "commit"
    ref: Word | None = None
    scope: Word | None = None
    services: Annotated[list[Word], Meta(max_length=1000)] = []
    on_drift: Literal["refuse", "keep", "discard"] | None = None
    allow_mass_delete: bool = False
    from_deploy: Word | None = None
    """For a rollback: the deploy whose outcome is to be restored."""
    request_id: Word | None = None
    requested_by: Word | None = None
    session_id: Word | None = None
    confirm: Annotated[list[Word], Meta(max_length=100)] = []
    """Rules that a person allows an exception from; needs a person's token with the right `confirm`."""
    because: Annotated[str, Meta(max_length=2000)] = ""
    """Why the exception."""


class HoldWanted(_Wanted, frozen=True):
    because: Text
    seconds: Annotated[float, Meta(gt=0, le=365 * 24 * 3600)] | None = None
    """Default: the environment's `hold_ttl`."""


class BlockWanted(_Wanted, frozen=True):
    sha: Annotated[str, Meta(pattern=r"^[0-9a-f]{7,64}$")]
    because: Text = "blocked over the API"


class UnblockWanted(_Wanted, frozen=True):
    sha: Annotated[str, Meta(pattern=r"^[0-9a-f]{7,64}$")]


class Author(_Wanted, frozen=True):
    name: Word
    email: Word


class AdoptWanted(_Wanted, frozen=True):
    author: Author
    """Whose commit it is."""
    paths: Annotated[list[Annotated[str, Meta(min_length=1, max_length=4096)]], Meta(max_length=10_000)] = []
    branch: Word | None = None
    message: Text | None = None
    merge: bool = False
    foreign: bool = False


class Asked(Struct, frozen=True, kw_only=True, rename="camel"):
    """202: it was asked for and goes its way."""

    deploy_id: str
    status: str
    """waiting, running, or how it ended."""
