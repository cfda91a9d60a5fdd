"""Sizes as people write them in host.toml: `500MB`, `2GB`, or a plain number of bytes."""

from __future__ import annotations

import re

EXPECTED = 'a size such as "500MB" or "2GB", or a number of bytes'
_WRITTEN = re.compile(r"([0-9]{1,9}) ?(kB|MB|GB|TB)", re.ASCII)
_UNITS = {"kB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}


def parse(value: int | str) -> int:
    """Bytes. Raises ValueError for what is no size."""
    if isinstance(value, int):
        if value < 0:
            raise ValueError(value)
        return value
    written = _WRITTEN.fullmatch(value)
    if written is None:
        raise ValueError(value)
    return int(written[1]) * _UNITS[written[2]]
