"""DESIGN's three-way table once more, in plain dictionaries: the judge of the real one.

Three trees map a path to a content: R what was put there last, W what the new commit has, A what is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Tree = dict[str, str]
PROTECTED = ("secret", "lib/secret")
IGNORED = ("log", "lib/log")
MUTABLE = ("state", "lib/state")
IN_PLACE = ("conf",)
PLAIN = ("a", "b", "conf", "lib", "lib/x", "lib/y", "lib/deep/z", "a/inner")
NAMES = (*PLAIN, *PROTECTED, *IGNORED, *MUTABLE)


@dataclass
class Outcome:
    """What must come of it: the folder afterwards, unless it is refused."""

    after: Tree
    refused: dict[str, str] = field(default_factory=dict)
    """Path to why: `drift` or `conflict`."""


def above(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def below(tree: Tree, path: str) -> list[str]:
    return [p for p in tree if p.startswith(path + "/")]


def whole(tree: Tree) -> bool:
    """Whether no path is a file and a folder at once."""
    return not any(higher in tree for path in tree for higher in above(path))


def file_above(tree: Tree, path: str) -> str | None:
    return next((higher for higher in above(path) if higher in tree), None)


def outcome(r: Tree, w: Tree, a: Tree, on_drift: str) -> Outcome:
    """The table, path by path; R and W hold no protected path."""
    result = Outcome(after=dict(a))
    for path in sorted({*r, *w, *a}):
        verdict = _one(path, r, w, a, on_drift)
        if verdict in ("drift", "conflict"):
            result.refused[path] = verdict
        elif verdict == "gone":
            result.after.pop(path, None)
        elif verdict != "stays":
            result.after[path] = verdict.removeprefix("becomes ")
    return result


def _one(path: str, r: Tree, w: Tree, a: Tree, on_drift: str) -> str:
    if path in PROTECTED:
        return "stays"
    if path not in r:
        return _untracked(path, r, w, a, on_drift)
    odd = bool(below(a, path)) or file_above(a, path) is not None
    there = a.get(path)
    if not odd and there == r[path]:
        return _becomes(w.get(path))
    if path in MUTABLE:
        if odd:
            arrived = path not in w and not below(a, path)
            return "stays" if arrived else "conflict"
        return _becomes(w.get(path))
    if w.get(path) == r[path]:
        if on_drift == "keep":
            return "stays"
        return "drift" if on_drift == "refuse" or odd else _becomes(r[path])
    folder_arrived = bool(below(a, path)) and path not in w and bool(below(w, path))
    if folder_arrived or (there == w.get(path) and not below(a, path) and (not odd or path not in w)):
        return "stays"
    return "conflict"


def _untracked(path: str, r: Tree, w: Tree, a: Tree, on_drift: str) -> str:
    going = {p for p in r if p not in w}
    if path not in w:
        if path in IGNORED or path in MUTABLE:
            return "stays"
        return "drift" if on_drift == "refuse" else "stays"
    if path in a:
        return "stays" if a[path] == w[path] else "conflict"
    in_way = file_above(a, path)
    if (in_way is not None and in_way not in going) or set(below(a, path)) - going:
        return "conflict"
    return _becomes(w[path])


def _becomes(content: str | None) -> str:
    return "gone" if content is None else f"becomes {content}"
