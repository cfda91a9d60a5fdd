"""The life of an edit, pure: from what a look found to the rows that change."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from homeport.model.edits import Edit, EditState
from homeport.model.live import Difference, Entry
from homeport.model.paths import exact


class Sight(Struct, frozen=True, kw_only=True):
    """One look at one live folder."""

    target: str
    differences: tuple[Difference, ...]
    ahead: dict[str, Entry | None]
    """Paths at which the branch's tip is not as recorded, with what it has there."""


def after_look(known: Sequence[Edit], sight: Sight, now: str, service_of: Callable[[str], str],
               new_id: Callable[[], str]) -> list[Edit]:  # fmt: skip
    """The rows that a look makes new or changes. `known` are the living edits of this folder.

    An edit is closed when live, deployed and git agree on its path; until then it lives.
    """
    there = {exact(d.path): d for d in sight.differences}
    ahead = {exact(path): entry for path, entry in sight.ahead.items()}
    changed: list[Edit] = []
    for edit in known:
        difference = there.pop(edit.path, None)
        after = _seen(edit, difference, edit.path in ahead, ahead.get(edit.path), now)
        if after != edit:
            changed.append(after)
    for path, difference in there.items():
        if difference.foreign is None:
            changed.append(Edit(id=new_id(), target=sight.target, service=service_of(difference.path), path=path,
                                state="open", since=now, actual=difference.actual))  # fmt: skip
    return changed


def relabeled(known: Sequence[Edit], service_of: Callable[[str], str]) -> list[Edit]:
    """Edits under the name that their service has now; a shared folder's services may be called otherwise since."""
    return [replace(edit, service=service_of(edit.path)) for edit in known]


def _seen(edit: Edit, difference: Difference | None, moved: bool, tip: Entry | None, now: str) -> Edit:
    if difference is None:
        return edit if moved else replace(edit, state="closed", ended=now)
    if difference.actual != edit.actual:
        # what was decided was decided about other bytes
        return replace(edit, state="open", actual=difference.actual, because=None, until=None, branch=None, commit=None,
                       landed=None, request=None, number=None, unsure=False)  # fmt: skip
    if moved and tip == difference.actual and edit.state != "merged":
        return replace(edit, state="merged", because=None, until=None, unsure=False)
    if edit.state == "accepted" and not accepted_now(edit, now):
        return replace(edit, state="open", because=None, until=None)
    return edit


def accepted_now(edit: Edit, now: str) -> bool:
    """Whether an acceptance holds: it ends by itself at its hour."""
    return edit.state == "accepted" and edit.until is not None and moment(now) < moment(edit.until)


def waiting_at(known: Sequence[Edit], differences: Sequence[Difference]) -> list[str]:
    """The requests, or else the branches, that hold all of these differences as they are; none when one is missing, or may
    not have come to the origin."""
    found = about([edit for edit in known if edit.state == "adopted" and not edit.unsure], differences)
    return sorted(set(map(held_in, found.values()))) if len(found) == len(differences) else []


def held_in(edit: Edit) -> str:
    """Where an adopted edit is: its request, or else its branch."""
    return edit.request or f"branch {edit.branch}"


def about(known: Iterable[Edit], differences: Sequence[Difference]) -> dict[str, Edit]:
    """By path, the edit that each difference belongs to as it is now: what was decided holds for those bytes only."""
    by_path = {edit.path: edit for edit in known}
    found = ((d, by_path.get(exact(d.path))) for d in differences if by_path)
    return {d.path: edit for d, edit in found if edit is not None and edit.actual == d.actual}


def ended(known: Sequence[Edit], paths: Collection[str], state: EditState, by: str, now: str) -> list[Edit]:
    """The living edits at these paths, ended."""
    wanted = {exact(path) for path in paths}
    return [replace(edit, state=state, by=by or edit.by, ended=now) for edit in known if edit.path in wanted]


def old(edits: Iterable[Edit], now: str, warning: float) -> list[Edit]:
    """Edits that nobody decided about, or that are not merged, for longer than `warning` seconds."""
    limit = moment(now) - timedelta(seconds=warning)
    return [edit for edit in edits if edit.state in ("open", "adopted") and moment(edit.since) <= limit]


def moment(at: str) -> datetime:
    return datetime.fromisoformat(at)


def expiry(said: str, now: str, parse: Callable[[str], float]) -> str | None:
    """The end of an acceptance, from a duration (`7d`) or a date (`2026-12-31`, with or without a time, UTC unless it
    says otherwise); None when it is neither. `parse` reads durations and raises ValueError."""
    try:
        end = moment(now) + timedelta(seconds=parse(said))
    except ValueError:
        try:
            end = datetime.fromisoformat(said)
        except ValueError:
            return None
        if end.tzinfo is None:
            end = end.replace(tzinfo=moment(now).tzinfo)
    return end.astimezone(moment(now).tzinfo).isoformat(timespec="milliseconds").replace("+00:00", "Z")
