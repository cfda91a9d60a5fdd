"""Errors as JSON objects with code, what, where and next; and what a caller is told of a deploy that ended."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi.datastructures import ResponseSpec

from homeport.daemon.access import Denied
from homeport.model.errors import (
    Busy,
    Cancelled,
    ConfigFault,
    GateClosed,
    HomeportError,
    InfrastructureFault,
    Refused,
    StateFault,
    UsageFault,
)

log = logging.getLogger("homeport.daemon")
_UNKNOWN = ("no-deploy", "no-commit", "no-branch", "no-service", "environment", "no-scope", "not-blocked", "no-drift")
"""Codes that say that something is not there."""
_STATUS: tuple[tuple[type[HomeportError], int], ...] = (
    (UsageFault, 400), (ConfigFault, 409), (StateFault, 500), (Refused, 409), (GateClosed, 409), (Busy, 409),
    (Cancelled, 409), (InfrastructureFault, 503),
)  # fmt: skip


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Every error of the API."""

    code: str
    what: str
    where: str = ""
    next: str = ""


ERRORS: dict[int, ResponseSpec] = {
    status: ResponseSpec(Problem, generate_examples=False, description=words)
    for status, words in {
        400: "The request cannot be read", 401: "No token, or not known", 403: "No right to it", 404: "Not there",
        409: "Refused as things are", 413: "Too large", 415: "Not JSON", 429: "Too many wrong tokens", 503: "Ask again",
    }.items()
}  # fmt: skip
"""For the schema: every route may answer so."""


def answering(**more: Any) -> dict[int, ResponseSpec]:
    """`ERRORS`, and what else a route answers: `answering(_202=Asked)`."""
    return ERRORS | {int(status[1:]): ResponseSpec(kind, generate_examples=False) for status, kind in more.items()}


def status_of(fault: HomeportError) -> int:
    if isinstance(fault, Denied):
        return fault.status
    if fault.code in _UNKNOWN:
        return 404
    return next((status for kind, status in _STATUS if isinstance(fault, kind)), 500)


def of_homeport(_: Request[Any, Any, Any], fault: HomeportError) -> Response[Problem]:
    headers = {"www-authenticate": "Bearer"} if status_of(fault) == 401 else {}
    return _told(status_of(fault), Problem(code=fault.code or "failed", what=fault.what, where=fault.where,
                                           next=fault.next), headers)  # fmt: skip


def of_http(request: Request[Any, Any, Any], fault: HTTPException) -> Response[Problem]:
    """What the framework refuses: no such path, a method that is not meant, a body of another shape."""
    codes = {404: "no-such-path", 405: "method", 400: "bad-request"}
    where = request.url.path
    what = fault.detail
    if isinstance(fault, ValidationException) and isinstance(fault.extra, list) and fault.extra:
        first = fault.extra[0] if isinstance(fault.extra[0], dict) else {}
        where, what = str(first.get("key") or where), str(first.get("message") or what)
    return _told(fault.status_code, Problem(code=codes.get(fault.status_code, "http"), what=what[:500], where=where[:200],
                                            next="GET /api/v1/schema"), dict(fault.headers or {}))  # fmt: skip


def of_anything(request: Request[Any, Any, Any], fault: Exception) -> Response[Problem]:
    """A fault of our own: the journal of the daemon has it, the caller learns nothing of our insides."""
    log.error("%s %s failed", request.method, request.url.path, exc_info=fault)
    return _told(500, Problem(code="internal", what="homeport itself failed", where=request.url.path,
                              next="see the daemon's own log, and report it"), {})  # fmt: skip


def _told(status: int, problem: Problem, headers: dict[str, str]) -> Response[Problem]:
    return Response(problem, status_code=status, headers=headers, media_type="application/json")
