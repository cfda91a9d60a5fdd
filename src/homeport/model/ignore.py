"""The .gitignore files of a repository as one flat list, anchored at the source folder of a target.

A live folder is not the repository: what lies in its own .gitignore files is not to be trusted, and the files
of the folders above its source are not on the host at all. So their lines are rewritten, outermost file first.
"""

from __future__ import annotations

from collections.abc import Mapping

from homeport.model import globs
from homeport.model.paths import from_bytes, to_bytes, within
from homeport.model.patterns import Matcher

EVERYTHING = ("*",)
"""The source folder itself is ignored by a folder above it: git then looks at nothing below."""


def flat(files: Mapping[str, str], source: str) -> list[str]:
    """All patterns that bear on `source`, in the order in which the last match decides.

    `files` maps a folder of the repository (empty for its root) to the text of its .gitignore.
    """
    above = [folder for folder in files if within(source, folder) and folder != source]
    below = [folder for folder in files if within(folder, source)]
    ordered = sorted(above, key=len)
    if _source_ignored({folder: files[folder] for folder in ordered}, source):
        return list(EVERYTHING)
    ordered += sorted(below, key=lambda folder: (folder.count("/") if folder else -1, folder))
    return [line for folder in ordered for line in rewrite(folder, files[folder], source)]


def rewrite(folder_of_gitignore: str, text: str, source: str) -> list[str]:
    """The lines of one .gitignore as they read from `source`; those that cannot match below it are left out."""
    found: list[str] = []
    inside = within(folder_of_gitignore, source)
    if not inside and not within(source, folder_of_gitignore):
        return found
    deeper = folder_of_gitignore if inside else source
    shallower = source if inside else folder_of_gitignore
    between = to_bytes(deeper[len(shallower) :].strip("/"))
    for line in globs.lines(to_bytes(text)):
        for pattern in globs.parse(line):
            bodies = [_moved_down(pattern, between)] if inside else _moved_up(pattern, between)
            found += [from_bytes(_line(pattern, body)) for body in bodies]
    return found


def _source_ignored(above: Mapping[str, str], source: str) -> bool:
    """Whether git would not even enter the source folder."""
    parts = source.split("/") if source else []
    for depth in range(1, len(parts) + 1):
        here = "/".join(parts[:depth])
        for folder in sorted(above, key=len, reverse=True):
            if folder == here or not within(here, folder):
                continue
            verdict = Matcher(above[folder].splitlines()).verdict(here[len(folder) :].strip("/"), is_dir=True)
            if verdict is not None:
                if verdict:
                    return True
                break
    return False


def _text(segments: tuple[globs.Segment, ...]) -> bytes:
    return b"/".join(b"".join(token.raw for token in segment) for segment in segments)


def _moved_down(pattern: globs.Pattern, folder: bytes) -> bytes:
    """From a folder below the source: put below that folder."""
    body = _text(pattern.segments)
    if not folder:
        return b"/" + body if pattern.anchored else body
    middle = b"/" if pattern.anchored else b"/**/"
    return b"/" + globs.escaped(folder) + middle + body


def _moved_up(pattern: globs.Pattern, path: bytes) -> list[bytes]:
    """From a folder above the source: what is left of the pattern once it has matched the way down."""
    if not pattern.anchored:
        return [_text(pattern.segments)]
    states = {0}
    for name in path.split(b"/"):
        after: set[int] = set()
        for at in _with_skips(pattern.segments, states):
            if at < len(pattern.segments):
                segment = pattern.segments[at]
                if globs.is_any_depth(segment):
                    after.add(at)
                elif globs.segment_matches(segment, name):
                    after.add(at + 1)
        states = after
    return [b"/" + _text(pattern.segments[at:]) for at in sorted(states) if at < len(pattern.segments)]


def _with_skips(segments: tuple[globs.Segment, ...], states: set[int]) -> set[int]:
    """`**` may also stand for no folder at all."""
    found = set(states)
    for at in sorted(states):
        here = at
        while here < len(segments) and globs.is_any_depth(segments[here]):
            here += 1
            found.add(here)
    return found


def _line(pattern: globs.Pattern, body: bytes) -> bytes:
    """A line that git reads back as this pattern."""
    if body.startswith((b"#", b"!")):
        body = b"\\" + body
    if body.endswith(b"\r"):
        body = body[:-1] + b"[\r]"
    return (b"!" if pattern.negated else b"") + body + (b"/" if pattern.directory_only else b"")
