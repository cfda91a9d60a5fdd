"""The body of a request, read as exactly what the route declares: a number is a JSON number, never a text of digits."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request
from litestar.exceptions import ValidationException


class StrictRequest(Request[Any, Any, Any]):
    """Reads the body into the route's own Struct; what the framework does afterwards finds nothing left to convert.

    Raises ValidationException for another type, an unknown key, or a value out of bounds.
    """

    async def json(self) -> Any:
        wanted = self.route_handler.parsed_data_field
        if wanted is None:
            return await super().json()
        try:
            return msgspec.json.decode(await self.body(), type=wanted.annotation, strict=True)
        except msgspec.DecodeError as fault:
            what, _, key = str(fault).partition(" - at `$.")
            raise ValidationException("the body is not what is asked for",
                                      extra=[{"message": what, "key": key.rstrip("`") or "body"}]) from fault  # fmt: skip
