"""Where a checkout says that it comes from, read from its own settings where those are plain: no git is started."""

from __future__ import annotations

import os
import re

_URL = re.compile(r'url\s*=\s*([^\s"\\#;]+)\s*', re.IGNORECASE)
_PLAIN = re.compile(r'\[[^\[\]]*\]')


def plain_origin(folder: str) -> str | None:
    """The one `url` of `[remote "origin"]`; None where only git can tell: includes, quotes, several, another's folder."""
    path = os.path.join(folder, ".git", "config")
    try:
        with open(path, encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                return None
            text = file.read(1 << 16)
    except (OSError, UnicodeDecodeError):
        return None
    lowered = text.lower()
    if "[include" in lowered or "worktreeconfig" in lowered or "\\\n" in text or len(text) == 1 << 16:
        return None
    inside, urls = False, []
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            if not _PLAIN.fullmatch(line):
                return None
            inside = line == '[remote "origin"]'
            if not inside and "origin" in line.lower() and "remote" in line.lower():
                return None
        elif inside and line.lower().startswith("url"):
            found = _URL.fullmatch(line)
            if found is None:
                return None
            urls.append(found[1])
    return urls[0] if len(urls) == 1 else None
