"""One gitignore pattern, read exactly as git reads it and turned into a regular expression over bytes.

git matches bytes, so `?` is one byte of a UTF-8 character here too. The expressions hold no nested
repetition over the same text: a hostile pattern costs its length times the length of the path.
"""

from __future__ import annotations

import re

from msgspec import Struct

_POSIX = {
    b"alnum": rb"[0-9A-Za-z]",
    b"alpha": rb"[A-Za-z]",
    b"blank": rb"[ \t]",
    b"cntrl": rb"[\x00-\x1f\x7f]",
    b"digit": rb"[0-9]",
    b"graph": rb"[\x21-\x7e]",
    b"lower": rb"[a-z]",
    b"print": rb"[\x20-\x7e]",
    b"punct": rb"[!-/:-@\[-`{-~]",
    b"space": rb"[ \t\n\v\f\r]",
    b"upper": rb"[A-Z]",
    b"xdigit": rb"[0-9A-Fa-f]",
}
_STAR = b"*"


class Token(Struct, frozen=True):
    """A piece of a pattern: `raw` as written, `regex` what it matches (`*` for a run of stars)."""

    raw: bytes
    regex: bytes


Segment = tuple[Token, ...]


class Pattern(Struct, frozen=True):
    """One line; `anchored` when it holds a slash that is not its last byte."""

    segments: tuple[Segment, ...]
    anchored: bool
    directory_only: bool
    negated: bool

    @property
    def regex(self) -> bytes:
        """Matches the whole path (anchored) or the whole last name (not anchored)."""
        return _path_regex(self.segments) if self.anchored else _segment_regex(self.segments[0])


def lines(text: bytes) -> list[bytes]:
    """The patterns of a .gitignore, comments and blank lines left out, trailing spaces cut as git does."""
    found = []
    for number, raw in enumerate(text.removeprefix(b"\xef\xbb\xbf").split(b"\n")):
        del number
        if raw and not raw.startswith(b"#"):
            line = _trimmed(raw.removesuffix(b"\r").partition(b"\0")[0])
            if line:
                found.append(line)
    return found


def parse(line: bytes) -> list[Pattern]:
    """The patterns a line stands for: none when it can never match, two where git reads one `**` two ways."""
    negated = line.startswith(b"!")
    body = line[1:] if negated else line
    directory_only = body.endswith(b"/")
    body = body[:-1] if directory_only else body
    anchored = b"/" in body
    body = body.removeprefix(b"/")
    tokens = _tokens(body)
    if not body or tokens is None:
        return []
    if not anchored:
        return [Pattern((tokens,), False, directory_only, negated)]
    return [Pattern(_split(way), True, directory_only, negated) for way in _readings(tokens)]


def segment_matches(segment: Segment, name: bytes) -> bool:
    return re.fullmatch(_segment_regex(segment), name, re.DOTALL) is not None


def is_any_depth(segment: Segment) -> bool:
    """A segment that is `**` stands for any number of folders."""
    return len(segment) == 1 and segment[0].regex == _STAR and len(segment[0].raw) > 1


def escaped(path: bytes) -> bytes:
    """A path as a pattern that matches only itself (a line feed, which no line can hold, becomes `?`)."""
    return re.sub(rb"([*?\[\\])", rb"\\\1", path).replace(b"\n", b"?")


def _trimmed(line: bytes) -> bytes:
    last_space = None
    at = 0
    while at < len(line):
        char = line[at : at + 1]
        if char == b" ":
            last_space = at if last_space is None else last_space
        else:
            if char == b"\\":
                at += 1
                if at >= len(line):
                    return line
            last_space = None
        at += 1
    return line if last_space is None else line[:last_space]


def _tokens(body: bytes) -> Segment | None:
    """None for what git never matches: an open bracket, a lonely backslash at the end."""
    found: list[Token] = []
    at = 0
    while at < len(body):
        char = body[at : at + 1]
        end = at + 1
        if char == b"*":
            while body[end : end + 1] == b"*":
                end += 1
            regex = _STAR
        elif char == b"?":
            regex = b"[^/]"
        elif char == b"[":
            read = _bracket(body, at)
            if read is None:
                return None
            regex, end = read
        elif char == b"\\":
            if end >= len(body):
                return None
            end += 1
            regex = re.escape(body[at + 1 : end])
        else:
            regex = re.escape(char)
        found.append(Token(body[at:end], regex))
        at = end
    return tuple(found)


def _bracket(body: bytes, start: int) -> tuple[bytes, int] | None:
    """The regular expression of a bracket expression and where it ends."""
    at = start + 1
    negated = body[at : at + 1] in (b"!", b"^") and at < len(body)
    at += 1 if negated else 0
    chosen: set[int] = set()
    before: int | None = None
    first = True
    while True:
        if at >= len(body):
            return None
        char = body[at]
        if char == ord("]") and not first:
            break
        first = False
        step = _bracket_item(body, at, before, chosen)
        if step is None:
            return None
        at, before = step
    allowed = (set(range(256)) - chosen if negated else chosen) - {ord("/")}
    return _class_of(allowed), at + 1


def _bracket_item(body: bytes, at: int, before: int | None, chosen: set[int]) -> tuple[int, int | None] | None:
    """Reads one item at `at` into `chosen`: (next position, the byte a range could start from)."""
    char = body[at]
    if char == ord("\\"):
        if at + 1 >= len(body):
            return None
        chosen.add(body[at + 1])
        return at + 2, body[at + 1]
    if char == ord("-") and before and body[at + 1 : at + 2] not in (b"", b"]"):
        at += 1
        if body[at] == ord("\\"):
            at += 1
            if at >= len(body):
                return None
        chosen.update(range(before, body[at] + 1))
        return at + 1, None
    if body[at : at + 2] == b"[:":
        end = body.find(b"]", at + 2)
        if end < 0:
            return None
        if end - 1 >= at + 2 and body[end - 1 : end] == b":":
            members = _POSIX.get(body[at + 2 : end - 1])
            if members is None:
                return None
            chosen.update(c for c in range(256) if re.fullmatch(members, bytes([c])))
            return end + 1, None
    chosen.add(char)
    return at + 1, char


def _class_of(allowed: set[int]) -> bytes:
    if not allowed:
        return b"(?!)"
    return b"[" + b"".join(b"\\x%02x" % c for c in sorted(allowed)) + b"]"


def _split(tokens: Segment) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    current: list[Token] = []
    for token in tokens:
        if token.regex == b"/":
            segments.append(tuple(current))
            current = []
        else:
            current.append(token)
    segments.append(tuple(current))
    return tuple(segments)


def _readings(tokens: Segment) -> list[Segment]:
    """git cuts the literal beginning off before it reads `**`: `lib**/x` crosses folders as `**/x` does."""
    literal = 0
    while literal < len(tokens) and len(tokens[literal].raw) == 1 and tokens[literal].raw not in b"*?":
        literal += 1
    if literal in (0, len(tokens)) or tokens[literal - 1].raw == b"/" or len(tokens[literal].raw) < 2:
        return [tokens]
    head, rest = tokens[:literal], tokens[literal + 1 :]
    if tokens[literal].regex != _STAR or (rest and rest[0].raw != b"/"):
        return [tokens]
    star, deep, slash = Token(b"*", _STAR), Token(b"**", _STAR), Token(b"/", b"/")
    if not rest:
        return [(*head, star), (*head, star, slash, deep)]
    return [(*head, *rest[1:]), (*head, star, slash, deep, *rest)]


def _segment_regex(segment: Segment) -> bytes:
    """Each star takes the earliest place that fits, which is enough when what follows has a fixed length."""
    chunks: list[bytes] = [b""]
    for token in segment:
        if token.regex == _STAR:
            chunks.append(b"")
        else:
            chunks[-1] += token.regex
    if len(chunks) == 1:
        return chunks[0]
    middle = b"".join(b"(?>[^/]*?" + chunk + b")" for chunk in chunks[1:-1])
    return chunks[0] + middle + b"[^/]*" + chunks[-1]


def _path_regex(segments: tuple[Segment, ...]) -> bytes:
    parts: list[list[bytes]] = [[]]
    for segment in segments:
        if is_any_depth(segment):
            if parts[-1] or len(parts) == 1:
                parts.append([])
        else:
            parts[-1].append(_segment_regex(segment))
    chunks = [b"/".join(part) for part in parts]
    if len(chunks) == 1:
        return chunks[0]
    head = chunks[0] + b"/" if parts[0] else b""
    middle = b"".join(b"(?>(?:[^/]+/)*?" + chunk + b"/)" for chunk in chunks[1:-1])
    return head + middle + (b"(?:[^/]+/)*" + chunks[-1] if parts[-1] else b".+")
