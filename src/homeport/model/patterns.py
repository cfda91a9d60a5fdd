"""Path patterns in gitignore syntax, matched as git matches them, without git and without a disk."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache

from msgspec import Struct

from homeport.model import globs
from homeport.model.paths import from_bytes, to_bytes

_ALWAYS = (".git/", ".homeport")
"""Never let go: the checkout's own store and the claim of the target."""

BUILTIN_PROTECT: tuple[str, ...] = (
    ".env*",
    "!.env.example",
    "node_modules/",
    ".venv/",
    "venv/",
    "__pycache__/",
    "*.bak*",
    "*.backup*",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.keystore",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    "*credentials*.json",
    "*-sa-key.json",
    "service-account*.json",
    *_ALWAYS,
)


def effective_protect(
    project_protect: Sequence[str],
    service_protect: Sequence[str],
    unprotect: Sequence[str],
    outputs: Sequence[str],
) -> tuple[str, ...]:
    """The patterns that hold for one target, in order; the last one that matches a path decides.

    Build `outputs` beat the built-in list, not what the project itself protects. An `unprotect` pattern is
    taken out of the built-in list; one that is not in it becomes an exception.
    """
    lifted = {_plain(pattern) for pattern in unprotect}
    outputs_lifted = {_plain(output) for output in outputs}
    builtin = [p for p in BUILTIN_PROTECT if p not in _ALWAYS and _plain(p) not in lifted | outputs_lifted]
    known = {_plain(pattern) for pattern in BUILTIN_PROTECT}
    exceptions = [f"!{pattern}" for pattern in unprotect if _plain(pattern) not in known]
    produced = [f"!/{from_bytes(globs.escaped(to_bytes(o.strip('/'))))}" for o in outputs if o.strip("/")]
    ordered = [*builtin, *produced, *exceptions, *project_protect, *service_protect, *_ALWAYS]
    return tuple(ordered)


def _plain(pattern: str) -> str:
    return pattern.strip("/")


class _Run(Struct, frozen=True):
    """Neighbouring patterns with the same sign, as one expression each: for a path, for a last name."""

    negated: bool
    file_path: re.Pattern[bytes] | None
    file_name: re.Pattern[bytes] | None
    folder_path: re.Pattern[bytes] | None
    folder_name: re.Pattern[bytes] | None


class Matcher:
    """Tells whether gitignore patterns match a path, or a folder above it; the last pattern wins.

    With `dir_only_matches_files` a pattern such as `node_modules/` takes a file or a link of that name too:
    what protects a folder must protect the link that stands in for it.
    """

    def __init__(self, patterns: Iterable[str], *, dir_only_matches_files: bool = False) -> None:
        self.patterns = tuple(patterns)
        self._dir_only_matches_files = dir_only_matches_files
        self._folders: dict[bytes, bool] = {b"": False}

    @cached_property
    def _runs(self) -> tuple[_Run, ...]:
        """Made when a path is asked about: a look that finds nothing asks about none."""
        return _runs(self.patterns, self._dir_only_matches_files)

    def __bool__(self) -> bool:
        return bool(self._runs)

    def match(self, path: str, is_dir: bool = False) -> bool:
        """`path` is relative to where the patterns are anchored."""
        return self.match_bytes(to_bytes(path).rstrip(b"/"), is_dir)

    def match_bytes(self, path: bytes, is_dir: bool = False) -> bool:
        """As `match`, for the bytes that git lists."""
        if is_dir:
            return self._folder(path)
        above, _, name = path.rpartition(b"/")
        return self._folder(above) or self._decide(path, name, False)

    def verdict(self, path: str, is_dir: bool = False) -> bool | None:
        """What the last pattern that names this very path says, whatever holds above it; None when none does."""
        raw = to_bytes(path).rstrip(b"/")
        return self._said(raw, raw.rpartition(b"/")[2], is_dir)

    def _folder(self, path: bytes) -> bool:
        unknown = []
        while (known := self._folders.get(path)) is None:
            unknown.append(path)
            path = path.rpartition(b"/")[0]
        for below in reversed(unknown):
            known = self._folders[below] = known or self._decide(below, below.rpartition(b"/")[2], True)
        return known

    def _decide(self, path: bytes, name: bytes, is_dir: bool) -> bool:
        return self._said(path, name, is_dir) is True

    def _said(self, path: bytes, name: bytes, is_dir: bool) -> bool | None:
        for run in self._runs:
            by_name = run.folder_name if is_dir else run.file_name
            if by_name is not None and by_name.fullmatch(name):
                return not run.negated
            by_path = run.folder_path if is_dir else run.file_path
            if by_path is not None and by_path.fullmatch(path):
                return not run.negated
        return None


@lru_cache(maxsize=32)
def _runs(patterns: tuple[str, ...], dir_only_matches_files: bool) -> tuple[_Run, ...]:
    """Last pattern first, so that the first run that matches decides. Most services have the same patterns."""
    runs: list[list[globs.Pattern]] = []
    for text in patterns:
        for line in globs.lines(to_bytes(text)):
            for pattern in globs.parse(line):
                if runs and runs[-1][0].negated == pattern.negated:
                    runs[-1].append(pattern)
                else:
                    runs.append([pattern])
    return tuple(_compiled(run, dir_only_matches_files) for run in reversed(runs))


def _compiled(run: Sequence[globs.Pattern], dir_only_matches_files: bool) -> _Run:
    def either(anchored: bool, folders: bool) -> re.Pattern[bytes] | None:
        chosen = [
            p.regex for p in run if p.anchored == anchored and (folders or dir_only_matches_files or not p.directory_only)
        ]
        return re.compile(b"|".join(b"(?:" + regex + b")" for regex in chosen), re.DOTALL) if chosen else None

    return _Run(
        negated=run[0].negated,
        file_path=either(True, False),
        file_name=either(False, False),
        folder_path=either(True, True),
        folder_name=either(False, True),
    )
