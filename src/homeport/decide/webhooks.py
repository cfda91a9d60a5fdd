"""Webhook deliveries: whether one is genuine, and what it says. Pure, and never an exception for what comes in.

A delivery is a hint that something changed; what is deployed is always read from the forge and from git afterwards.
So nothing here decides anything, and a name in a payload is only ever compared, never put into a command.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from msgspec import Struct

from homeport.decide import payloads
from homeport.decide.payloads import Bad, Subject
from homeport.model.errors import ConfigFault
from homeport.model.forge import Kind

LONGEST = 25 * 1024 * 1024
"""Bytes; GitHub sends nothing larger."""
_DELIVERY_ID = re.compile(r"[A-Za-z0-9._:-]{1,100}", re.ASCII)
_ID_HEADERS: dict[Kind, tuple[str, ...]] = {
    "github": ("x-github-delivery",),
    "gitea": ("x-gitea-delivery", "x-forgejo-delivery"),
    "gitlab": ("idempotency-key", "x-gitlab-event-uuid"),
}
_EVENT_HEADERS: dict[Kind, tuple[str, ...]] = {
    "gitea": ("x-gitea-event", "x-forgejo-event"),
    "gitlab": ("x-gitlab-event",),
    "github": ("x-github-event",),
}
"""In the order in which they are looked for: Gitea and Forgejo send GitHub's headers too."""


class Delivery(Struct, frozen=True, kw_only=True):
    id: str
    """The forge's own id of this delivery, the same when it is sent again; without one, the hash of the body."""
    event: str
    repository: str
    """`owner/name` as the payload says; compare it with the configured one."""
    subject: Subject


class Ignored(Struct, frozen=True, kw_only=True):
    """Genuine or not, there is nothing to do; answer 2xx when it is genuine."""

    id: str
    event: str
    why: str


class Malformed(Struct, frozen=True, kw_only=True):
    why: str


Headers = Mapping[str, str] | Iterable[tuple[str, str]]


def usable(values: Iterable[str | bytes | None]) -> list[bytes]:
    """The secrets of `[forge] webhook_secret`, ready for `verify`.

    Raises ConfigFault when there is none, or one is missing or empty: an empty secret signs everything.
    """
    secrets = [value.encode() if isinstance(value, str) else value for value in values]
    filled = [secret for secret in secrets if secret and secret.strip()]
    if not filled or len(filled) < len(secrets):
        what = "a webhook secret is empty" if secrets else "there is no webhook secret"
        raise ConfigFault(f"{what}, so anybody could sign a delivery", where="forge.webhook_secret",
                          next="set it to at least 20 random characters", code="empty-secret")  # fmt: skip
    return filled


def kind_of(headers: Headers) -> Kind | None:
    """Which forge a delivery says it comes from."""
    given = _lowered(headers)
    for kind, names in _EVENT_HEADERS.items():
        if any(name in given for name in names):
            return kind
    return None


def verify(kind: Kind, headers: Headers, raw_body: bytes, secrets: list[bytes]) -> bool:
    """Whether one of `secrets` signed exactly these bytes, in the way of that forge. In constant time per secret.

    False for a delivery of another forge than `kind`, for an absent, doubled or empty signature, and always when
    `secrets` is empty or holds an empty one.
    """
    given = _lowered(headers)
    if kind_of(given) != kind or not secrets or not all(secrets):
        return False
    if kind == "gitlab":
        return _any_equal(given.get("x-gitlab-token", ""), secrets)
    digests = [hmac.new(secret, raw_body, hashlib.sha256).hexdigest().encode() for secret in secrets]
    if kind == "gitea":
        signature = given.get("x-gitea-signature") or given.get("x-forgejo-signature") or ""
        return _any_equal(signature, digests)
    return _any_equal(given.get("x-hub-signature-256", ""), [b"sha256=" + digest for digest in digests])


def parse(kind: Kind, headers: Headers, raw_body: bytes) -> Delivery | Ignored | Malformed:
    """What a delivery says. `verify` comes first: this does not look at signatures."""
    given = _lowered(headers)
    event = _first(given, _EVENT_HEADERS[kind])
    if not event or len(event) > 64 or not event.isprintable():
        return Malformed(why="it does not say which event it is")
    try:
        payload = _document(raw_body, given.get("content-type", ""))
        known = payloads.subject(kind, event, payload)
        if isinstance(known, str):
            return Ignored(id=_id(kind, given, raw_body), event=event, why=known)
        repository = payloads.repository(kind, payload)
    except Bad as bad:
        return Malformed(why=str(bad))
    return Delivery(id=_id(kind, given, raw_body), event=event, repository=repository, subject=known)


def _lowered(headers: Headers) -> dict[str, str]:
    """By lower-case name. One that comes twice with two values is no header at all: which one would count?"""
    found: dict[str, str] = {}
    doubled: set[str] = set()
    for written, value in headers.items() if isinstance(headers, Mapping) else headers:
        name = written.lower()
        if found.setdefault(name, value) != value:
            doubled.add(name)
    return {name: value for name, value in found.items() if name not in doubled}


def _first(given: dict[str, str], names: tuple[str, ...]) -> str:
    return next((given[name] for name in names if given.get(name)), "")


def _any_equal(said: str, expected: list[bytes]) -> bool:
    """Compares with each, without stopping at the first that fits. HTTP servers read headers as Latin-1."""
    try:
        held = said.encode("latin-1")
    except UnicodeEncodeError:
        held = said.encode("utf-8", "surrogatepass")
    fits = [hmac.compare_digest(held, one) for one in expected]
    return bool(held) and any(fits)


def _id(kind: Kind, given: dict[str, str], raw_body: bytes) -> str:
    said = _first(given, _ID_HEADERS[kind])
    return said if _DELIVERY_ID.fullmatch(said) else "sha256:" + hashlib.sha256(raw_body).hexdigest()


def _document(raw_body: bytes, content_type: str) -> dict[str, Any]:
    """The JSON object, taken out of a form where the content type says so. Strict: Bad for anything doubtful."""
    if len(raw_body) > LONGEST:
        raise Bad("it is larger than 25 MiB")
    try:
        text = raw_body.decode("utf-8")
        if content_type.partition(";")[0].strip().lower() == "application/x-www-form-urlencoded":
            fields = parse_qsl(text, strict_parsing=True, errors="strict", max_num_fields=8)
            if [name for name, _ in fields] != ["payload"]:
                raise Bad("the form has not exactly the field `payload`")
            text = fields[0][1]
        document = json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_no_constant)
    except Bad:
        raise
    except (ValueError, RecursionError) as error:
        raise Bad("it is no JSON in UTF-8, or cut off, or nested too deeply") from error
    if not isinstance(document, dict):
        raise Bad("it is no JSON object")
    return document


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers of a doubled key may see two values, so none is read."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Bad("a key comes twice in one object")
    return found


def _no_constant(name: str) -> None:
    raise Bad(f"{name} is no JSON")
