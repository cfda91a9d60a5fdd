"""The pure part of the way back: which differences are adopted, which hunks of them, and what the commit says."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence

from msgspec import Struct

from homeport.model.edits import Edit, Person
from homeport.model.forge import is_ref_name
from homeport.model.live import Difference, Entry
from homeport.model.paths import exact, folders_above, printable, within
from homeport.model.remote import split

CONTEXT = 3
"""Lines shown around a hunk."""
MOST = 40
"""Lines shown of a file that is new, or gone."""


GONE = ("directory", "link in the way", "file in the way")
"""Oddities of a recorded path that mean: this file is gone, and what took its place is listed by itself."""


class Skipped(Struct, frozen=True):
    path: str
    because: str
    by_choice: bool = False
    """A person said so just now."""


def select(differences: Sequence[Difference], named: Collection[str] | None, edits: Sequence[Edit], *, foreign: bool,
           hostile: Callable[[str], bool], branches: Callable[[str], bool], large: Callable[[str], bool],
           onto: str | None = None) -> tuple[list[Difference], list[Skipped]]:  # fmt: skip
    """(what is adopted, what is not and why) of one live folder.

    `named` are the paths a person gave (None: all of them): naming one adopts what was accepted, and onto another
    branch (`onto`) what is on one already. `branches` tells whether the origin still has a branch, `large` whether a live
    file is too much for a commit.
    """
    known = {edit.path: edit for edit in edits}
    taken, skipped = [], []
    for difference in differences:
        if named is not None and not named_by(difference.path, named) and not _makes_way(difference, named):
            continue
        edit = known.get(exact(difference.path))
        because = "too large for a commit" if difference.actual is not None and large(difference.path) else None
        because = because or _because(difference, edit, named, foreign, hostile, branches, onto)
        if because is None:
            taken.append(difference)
        else:
            skipped.append(Skipped(difference.path, because))
    return taken, skipped


def _because(difference: Difference, edit: Edit | None, named: Collection[str] | None, foreign: bool,
             hostile: Callable[[str], bool], branches: Callable[[str], bool], onto: str | None) -> str | None:  # fmt: skip
    if difference.oddity is not None and difference.oddity not in GONE:
        return f"not a file or link: {difference.oddity}" if difference.oddity != "unreadable" else "cannot be read"
    if difference.foreign is not None and not foreign:
        return f"as in commit {difference.foreign[:12]}: another deployer wrote it, or it is merged already"
    if hostile(difference.path):
        return "git takes no file of that name"
    same = edit is not None and edit.actual == difference.actual
    asked_for = named is not None and difference.path in named
    if edit is None or not same or (asked_for and (edit.state == "accepted" or onto not in (None, edit.branch))):
        return None
    if edit.state == "accepted":
        return f"accepted: {edit.because}"
    if edit.state == "adopted" and edit.branch is not None and branches(edit.branch):
        return f"on branch {edit.branch} already"
    return None


def named_by(path: str, named: Collection[str]) -> bool:
    """Whether a person's path is this one, or a folder above it."""
    return any(one and within(path, one) for one in named)


def _makes_way(difference: Difference, named: Collection[str]) -> bool:
    """A file that became a folder goes when something in that folder is adopted."""
    return difference.oddity == "directory" and any(one.startswith(difference.path + "/") for one in named)


class Hunk(Struct, frozen=True):
    """One change of a text file: lines of the old replaced by lines of the new, with the context around."""

    old: tuple[int, int]
    new: tuple[int, int]
    text: str
    """As a unified diff shows it."""


class Choice(Struct, frozen=True):
    """What a person takes of one file."""

    chosen: tuple[Hunk, ...] = ()
    whole: bool = False
    stop: bool = False
    """Nothing more is to be asked or taken."""


def hunks(old: bytes, new: bytes) -> list[Hunk] | None:
    """The changes one by one; None when either is binary, and only whole files can be chosen."""
    if b"\0" in old[:8000] or b"\0" in new[:8000]:
        return None
    before, after = _lines(old), _lines(new)
    import difflib

    matcher = difflib.SequenceMatcher(None, before, after, autojunk=len(before) > 2000)
    found = []
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag != "equal":
            found.append(Hunk((a, b), (c, d), _text(before, after, (a, b), (c, d))))
    return found


def told(old: Entry | None, new: Entry | None, before: bytes, after: bytes, *, hunks: bool) -> str:
    """What a person reads before the question: the mode where it changes, and, where there are no hunks, the content."""
    lines = []
    if old is not None and new is not None and old.mode != new.mode:
        lines.append(f"  {_MODES.get(old.mode, old.mode)} before, {_MODES.get(new.mode, new.mode)} now")
    if before == after:
        pass
    elif b"\0" in before[:8000] or b"\0" in after[:8000]:
        lines.append(f"  binary: {len(before)} bytes before, {len(after)} now")
    elif not hunks:
        lines += _start("-", old, before) + _start("+", new, after)
    return "\n".join(lines)


_MODES = {"100755": "executable", "100644": "not executable", "120000": "a link"}


def _start(mark: str, entry: Entry | None, content: bytes) -> list[str]:
    if entry is None:
        return []
    if entry.mode == "120000":
        return [f"{mark}link to {printable(content.decode('utf-8', 'surrogateescape'))}"]
    lines = _lines(content)
    more = [f"  ... and {len(lines) - MOST} lines more"] if len(lines) > MOST else []
    return [mark + _shown(line) for line in lines[:MOST]] + more


def assemble(old: bytes, new: bytes, chosen: Sequence[Hunk]) -> bytes:
    """The old content with just these changes, byte for byte."""
    before, after = _lines(old), _lines(new)
    parts, at = [], 0
    for hunk in sorted(chosen, key=lambda h: (h.old, h.new)):
        parts += before[at : hunk.old[0]] + after[hunk.new[0] : hunk.new[1]]
        at = hunk.old[1]
    return b"".join(parts + before[at:])


def _lines(content: bytes) -> list[bytes]:
    """Lines with their ends; only a line feed ends one."""
    return re.findall(rb"[^\n]*\n|[^\n]+", content)


def _text(before: list[bytes], after: list[bytes], old: tuple[int, int], new: tuple[int, int]) -> str:
    above = before[max(0, old[0] - CONTEXT) : old[0]]
    below = before[old[1] : old[1] + CONTEXT]
    head = f"@@ -{old[0] - len(above) + 1},{len(above) + old[1] - old[0] + len(below)} " \
           f"+{new[0] - len(above) + 1},{len(above) + new[1] - new[0] + len(below)} @@"  # fmt: skip
    body = [(" ", line) for line in above]
    body += [("-", line) for line in before[old[0] : old[1]]] + [("+", line) for line in after[new[0] : new[1]]]
    body += [(" ", line) for line in below]
    return "\n".join([head, *(mark + _shown(line) for mark, line in body)])


def _shown(line: bytes) -> str:
    end = "" if line.endswith(b"\n") else " (no line end)"
    return printable(line.removesuffix(b"\n").decode("utf-8", "surrogateescape").replace("\t", "    ")) + end


# The three-way merge, path by path.


class Sides(Struct, frozen=True):
    """What the host's changes come to on a branch that has moved on since."""

    changes: dict[str, Entry | None]
    """Paths where only the host changed anything."""
    both: tuple[str, ...]
    """Files whose contents changed on both sides: they are merged line by line."""
    conflicts: tuple[str, ...]


def sides(recorded: Mapping[str, Entry | None], live: Mapping[str, Entry | None], fresh: Mapping[str, Entry]) -> Sides:
    """`recorded` and `live` hold the adopted paths, `fresh` everything the branch has in that folder.

    No path ever stands for another one: a file that was moved on one side and changed on the other is a conflict.
    """
    changes: dict[str, Entry | None] = {}
    both, conflicts = [], []
    for path, now in live.items():
        was, there = recorded[path], fresh.get(path)
        if now == there:
            continue
        if there == was:
            changes[path] = now
        elif was is not None and now is not None and there is not None:
            both.append(path)
        else:
            conflicts.append(path)
    conflicts += _in_each_others_way(changes, live, fresh)
    return Sides(changes, tuple(both), tuple(conflicts))


def _in_each_others_way(changes: Mapping[str, Entry | None], live: Mapping[str, Entry | None],
                        fresh: Mapping[str, Entry]) -> list[str]:  # fmt: skip
    """New paths that are a folder on the branch, or lie below what is a file there."""
    folders = {above for path in fresh if live.get(path, path) is not None for above in folders_above(path)}
    files = {path for path in fresh if live.get(path, path) is not None}
    new = [path for path, entry in changes.items() if entry is not None and path not in fresh]
    return [path for path in new if path in folders or any(above in files for above in folders_above(path))]


# What the commit says.


def message(said: str | None, paths: Sequence[str], host: str, environment: str, deployed: Sequence[str]) -> str:
    """The commit message: what the person said, or what was adopted, and the trailers that tell where from."""
    subject = (said or "").strip() or default_subject(paths, host)
    listed = "" if said or len(paths) == 1 else "\n".join(printable(path) for path in paths[:50]) + "\n\n"
    more = f"and {len(paths) - 50} more\n\n" if len(paths) > 50 and listed else ""
    trailers = [f"Homeport-Host: {_one_line(host)}", f"Homeport-Environment: {_one_line(environment)}"]
    trailers += [f"Homeport-Deployed: {sha}" for sha in dict.fromkeys(deployed)] or ["Homeport-Deployed: none"]
    return f"{subject}\n\n{listed}{more}" + "\n".join(trailers) + "\n"


def default_subject(paths: Sequence[str], host: str) -> str:
    what = printable(paths[0]) if len(paths) == 1 else f"{len(paths)} edits"
    return f"Adopt {what} from {_one_line(host)}"


def _one_line(words: str) -> str:
    return " ".join(printable(words).split()) or "unknown"


def branch_name(now: str, commit: str) -> str:
    """Of a branch that nobody named: `homeport/adopt-20260102-1a2b3c4d`."""
    return f"homeport/adopt-{now[:10].replace('-', '')}-{commit[:8]}"


def fit_branch(name: str, taken: Collection[str]) -> str | None:
    """Why the name cannot be that of a new branch; None when it can. `taken` are the environments' branches."""
    if not is_ref_name(name) or name.startswith("refs/"):
        return "it cannot be the name of a branch"
    if name in taken:
        return "an environment is deployed from it, and homeport never pushes there"
    return None


def person_of(name: str, email: str) -> Person | None:
    """Name and address as git can store them; None when either is missing."""
    clean = [" ".join(re.sub(r"[<>\x00-\x1f\x7f]", " ", part).split()) for part in (name, email)]
    return Person(name=clean[0], email=clean[1]) if all(clean) else None


def fetched_from(ssh: str | None, mirror: str) -> str:
    """What a checkout anywhere gives `git fetch` to reach a host's mirror; `ssh` is the host's `[user@]host[:port]`."""
    import shlex

    if ssh is None:
        return shlex.quote(mirror)
    host, port = _reached(ssh)
    named = f"{host}:{port}" if port else host
    return shlex.quote(f"ssh://{named}{mirror}" if ":" in named else f"{named}:{mirror}")


def copied_from(ssh: str, path: str, to: str) -> str:
    """The command that brings a file of a host to where a person is."""
    import shlex

    host, port = _reached(ssh)
    return shlex.join(["scp", *(["-P", port] if port else []), f"{host}:{path}", to])


def _reached(ssh: str) -> tuple[str, str]:
    """As `split`, an IPv6 address in brackets, as it stands in addresses of files."""
    host, port = split(ssh)
    user, at, name = host.rpartition("@")
    return (f"{user}{at}[{name}]" if ":" in name else host), port
