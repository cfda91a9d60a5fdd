"""How results look: plan, status, drift, history, one deploy, rescues, doctor, errors. Pure: values in, text out.

Every function returns whole lines. Where there is `color`, it adds colour and nothing else.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from homeport.cli.show import queue, tries, words
from homeport.cli.show.again import after_drift, again
from homeport.cli.show.words import Ink, ago, clock_time, compact_time, count, moment, several, short, text, took, when
from homeport.model.deploys import Deploy
from homeport.model.errors import HomeportError
from homeport.model.live import Rescue
from homeport.model.plan import Extent, Plan, Refusal, ServicePlan

WIDTH, REFUSED = 80, 12  # columns, and paths that are named of one refusal
_OUTCOMES = {
    "deployed": "good", "unchanged": "dim", "rolled_back": "bad", "failed": "bad", "refused": "warn",
    "cancelled": "warn", "superseded": "dim", "running": "next", "waiting": "dim",
}  # fmt: skip
_DRIFT = {
    "modified": ("M", "changed"),
    "added": ("A", "new"),
    "deleted": ("D", "missing"),
    "type_changed": ("T", "another kind of file"),
    "conflict": ("C", "changed in the commit too"),
}
_STATES = {"running": "good", "online": "good", "healthy": "good", "files": "dim"}


def table(rows: Sequence[Sequence[tuple[str, str]]], ink: Ink, indent: str = "") -> list[str]:
    """Aligned columns of (style, words); widths are those of the words, colour does not count."""
    columns = max((len(row) for row in rows), default=0)
    widths = [max((len(row[i][1]) for row in rows if i < len(row)), default=0) for i in range(columns)]
    lines = []
    for row in rows:
        cells = [ink(style, words) + " " * (widths[i] - len(words)) for i, (style, words) in enumerate(row)]
        while len(cells) > 1 and not row[len(cells) - 1][1]:
            cells.pop()
        cells[-1] = ink(*row[len(cells) - 1])
        lines.append(indent + "  ".join(cells))
    return lines


def next_lines(ink: Ink, commands: Iterable[tuple[str, str]], indent: str = "") -> list[str]:
    """Commands to run next, with what each is for."""
    found = [(again(command), again(why)) for command, why in commands]
    width = max((len(command) for command, _ in found), default=0)
    lines = []
    for number, (command, why) in enumerate(found):
        lead = "next: " if number == 0 else "      "
        gap = " " * (width - len(command))
        lines.append(indent + ink("dim", lead) + ink("next", command) + (ink("dim", f"{gap}  {why}") if why else ""))
    return lines


def joined(lines: Sequence[str]) -> str:
    return "\n".join(line.rstrip() for line in lines) + "\n"


def plan(plan: Plan, *, color: bool = False, words: Sequence[str] = ()) -> str:
    """What a deploy would do, and why it would not; `words` are what was said after `plan`."""
    ink = Ink(color)
    counts = plan.paths
    sides = [("added", counts.added), ("modified", counts.modified), ("deleted", counts.deleted)]
    changed = ", ".join(f"{number} {word}" for word, number in sides if number)
    same = plan.from_sha == plan.to_sha
    begin = f"{ink('sha', short(plan.from_sha))} → " if plan.from_sha and not same else ""
    total = sum(number for _, number in sides)
    lines = [f"{ink('strong', 'plan')}  {begin}{ink('sha', short(plan.to_sha))}"
             + (f"  {count(total, 'path')}: {changed}" if total else "")]  # fmt: skip
    if total and plan.from_sha is None:
        lines.append(ink("dim", "the first deploy, counted from nothing: what lies there as in the commit stays as it is"))
    if plan.services:
        lines += ["", *_plan_services(plan.services, plan.extent, ink)]
    if plan.actions:
        lines += ["", *(f"  {ink('strong', 'action')}  for {text(', '.join(one.paths))}" for one in plan.actions)]
    if plan.refusals:
        lines += ["", *_refusals(plan.refusals, ink)]
    elif plan.deployable:
        lines += ["", *next_lines(ink, [(text(shlex.join(["homeport", "deploy", *words])), "")])]
    elif not plan.services and not plan.actions:
        lines.append("nothing to do" if same else "nothing to do: no service is concerned")
    return joined(lines)


def _plan_services(services: Sequence[ServicePlan], extent: Mapping[str, Extent], ink: Ink) -> list[str]:
    width = max(len(text(s.service)) for s in services)
    lines = []
    for row in services:
        much = extent.get(row.service)
        told = f"{count(much.paths, 'path')}, +{much.inserted} -{much.removed} lines" if much is not None else ""
        lines.append(f"  {ink('strong', text(row.service).ljust(width))}  {' → '.join(row.actions)}"
                     + (f"  {ink('dim', told)}" if told else ""))  # fmt: skip
        if row.reasons:
            lines.append(" " * (width + 4) + ink("dim", _fitted(row.reasons, WIDTH - width - 4)))
    return lines


def _fitted(words: Sequence[str], room: int) -> str:
    """As many as fit on one line, and the number of the others."""
    shown: list[str] = []
    for number, word in enumerate(words):
        left = len(words) - number - 1
        more = f" and {left} more" if left else ""
        if shown and len(", ".join([*shown, text(word)])) + len(more) > room:
            return ", ".join(shown) + f" and {left + 1} more"
        shown.append(text(word))
    return ", ".join(shown)


def _refusals(refusals: Sequence[Refusal], ink: Ink) -> list[str]:
    lines = [ink("bad", "refused")]
    for refusal in refusals:
        lines.append(f"  {ink('warn', text(refusal.rule))}: {text(refusal.message)}")
        lines += [f"    {text(path)}" for path in refusal.paths[:REFUSED]]
        if len(refusal.paths) > REFUSED:
            lines.append(ink("dim", f"    and {len(refusal.paths) - REFUSED} more"))
        if refusal.next:
            lines += next_lines(ink, [(text(refusal.next), "")], "    ")
    return lines


HOSTFILES = {"changed": "changed outside homeport", "missing": "removed outside homeport",
             "odd": "host file cannot be taken", "interrupted": "edit of a host file was cut"}  # fmt: skip


def status(said: dict[str, Any], *, color: bool = False) -> str:
    """What runs, where, and whether anything is in the way."""
    ink = Ink(color)
    place = f"{said.get('environment') or ''} on {said.get('host') or 'this machine'}"
    sha = ink("sha", short(said["sha"])) if said.get("sha") else "nothing deployed yet"
    lines = [f"{ink('strong', text(str(said.get('project') or '')))}  {text(place)}  {sha}"]
    running = said.get("running")
    if running:
        lines.append(ink("next", f"deploying now: {text(running['deployId'])}, {text(running.get('stage') or 'waiting')}"))
    lines += queue.lines(said.get("waiting"), ink)
    rows = [[("dim", name) for name in ("service", "commit", "runtime", "drift", "state")]]
    rows += [_status_row(service) for service in said.get("services", ())]
    if len(rows) > 1:
        lines += ["", *table(rows, ink, "  ")]
    lines += _in_the_way(said, ink)
    return joined(lines)


def _status_row(service: dict[str, Any]) -> list[tuple[str, str]]:
    state, drift = text(str(service.get("state") or "unknown")), service.get("drift", 0)
    return [
        ("strong", text(service["service"])),
        ("sha", short(service.get("sha"))),
        ("dim", text(service.get("runtime") or "-")),
        ("dim" if drift == 0 else "warn", "?" if drift is None else count(drift, "path") if drift else "-"),
        (_STATES.get(state, "bad" if state in ("errored", "stopped", "failed", "absent") else "warn"), state),
    ]


def _in_the_way(said: dict[str, Any], ink: Ink) -> list[str]:
    lines: list[str] = []
    hold = said.get("hold")
    if hold:
        said_by = f"{text(hold['because'])} (by {text(hold['by'])})"
        said_by += "; a new push that the forge tells of is deployed" if hold.get("pushesPass") else ""
        lines.append(f"{ink('warn', 'on hold')} until {when(hold['until'])}: {said_by}")
    for block in said.get("blocked", ()):
        lines.append(f"{ink('warn', 'blocked')} {short(block['sha'])}: {text(block['because'])} "
                     f"(by {text(block['by'])}, {ago(block['at']) or text(block['at'])})")  # fmt: skip
    lines += tries.lines(said, ink)
    late = said.get("oldEdits", ())
    if late:
        since = min(row["since"] for row in late)
        lines.append(f"{ink('warn', 'undecided')} {count(len(late), 'edit')}, the oldest {ago(since) or text(since)}: "
                     f"{_fitted([row['path'] for row in late], 48)}")  # fmt: skip
    idle = said.get("idle")
    if idle and idle["code"] != "held":
        lines.append(f"{ink('warn', 'nothing is deployed by itself')}: {text(idle['because'])}")
    outside = said.get("hostfiles", ())
    for row in outside:
        lines.append(f"{ink('warn', HOSTFILES.get(row['state'], row['state']))}: {text(row['path'])}"
                     + (f" ({text(row['because'])})" if row["because"] else ""))  # fmt: skip
    commands = tries.commands(said)
    if outside:
        commands.append(("homeport hostfile diff", "see it, then hostfile record"))
    if late:
        commands.append(("homeport edits", "adopt, accept or discard them"))
    if said.get("edits"):
        commands.append(("homeport drift", f"{count(said['edits'], 'path')} changed on the host"))
    if hold:
        commands.append(("homeport unhold", "ends the hold"))
    if not said.get("sha") and not said.get("running"):
        commands.append(("homeport plan", "what a first deploy would do"))
    if lines or commands:
        lines.insert(0, "")
    return lines + next_lines(ink, commands)


def drift(said: dict[str, Any], *, color: bool = False) -> str:
    """Every path that is not as it was last put there, and what can be done about it."""
    ink = Ink(color)
    services = said.get("services", ())
    if said.get("equal"):
        names = ", ".join(words.whose(s["service"]) for s in services) or "there is no live folder"
        return joined([f"{ink('good', 'no drift')}: {names}"])
    lines: list[str] = []
    paths = [path for service in services for path in service["paths"]]
    for service in services:
        if service["paths"]:
            lines += ["", f"{ink('strong', words.whose(service['service']))}  {ink('dim', text(service['target']))}"]
            lines += _drift_rows(service["paths"], ink)
    states = {path["state"] for path in paths}
    keys = "  ".join(f"{letter} {words}" for state, (letter, words) in _DRIFT.items() if state in states)
    commands = after_drift(paths, said.get("observe"))
    if "branch" in said and not all(path.get("foreign") for path in paths):
        since = ago(said.get("fetchedAt"))
        age = f"compared with {text(said['branch'])} as it was fetched last{since and f', {since}'}"
        lines += ["", ink("dim", f"{age}; what another deployer put there since looks like an edit until: homeport plan")]
    return joined([*lines[1:], "", ink("dim", keys), *next_lines(ink, commands)])


def _drift_rows(paths: Sequence[dict[str, Any]], ink: Ink) -> list[str]:
    lines = []
    width = min(48, max(len(text(path["path"])) for path in paths))
    for path in paths:
        letter = _DRIFT.get(path["state"], ("?", ""))[0]
        style = {"A": "good", "D": "bad", "C": "bad"}.get(letter, "warn")
        words = []
        if path.get("adopted"):
            merged = f"; merged as {short(path['foreign'])}" if path.get("foreign") else ""
            words.append(f"adopted: {text(str(path['adopted']))}{merged}")
        elif path.get("foreign"):
            words.append(f"as in {short(path['foreign'])}, by another deployer")
        if path.get("because"):
            words.append(text(str(path["because"])))
        if path.get("accepted"):
            words.append(f"accepted: {text(str(path['accepted']))}")
        said = ink("dim", f"  {'; '.join(words)}") if words else ""
        lines.append(f"  {ink(style, letter)} {text(path['path']).ljust(width)}{said}")
    return lines


def history(deploys: list[Deploy], waiting: dict[str, Any] | None = None, *, color: bool = False) -> str:
    """What waits, then one line for each deploy, newest first as given."""
    ink = Ink(color)
    if not deploys and waiting is not None:
        return joined(queue.lines(waiting, ink))
    if not deploys:
        return joined(["no deploys yet", *next_lines(ink, [("homeport deploy", "")])])
    rows = [[("dim", name) for name in ("deploy", "outcome", "commit", "when", "", "took", "services")]]
    rows += [_history_row(row) for row in deploys]
    head, *lines = table(rows, ink)
    told = [*queue.lines(waiting, ink), head]
    for row, line in zip(deploys, lines, strict=True):
        told.append(line)
        if row.error_summary:
            told.append(ink("dim", "  " + _cut(text(row.error_summary), WIDTH - 2)))
    return joined(told)


def _cut(words: str, room: int) -> str:
    return words if len(words) <= room else words[: room - 1] + "…"


def _outcome(row: Deploy) -> str:
    return row.status or row.state


def _history_row(row: Deploy) -> list[tuple[str, str]]:
    outcome = _outcome(row)
    kind = "" if row.kind == "commit" else f" ({row.kind})"
    services = ", ".join(text(s) for s in row.services)
    return [
        ("", text(row.id)), (_OUTCOMES.get(outcome, ""), outcome.replace("_", " ") + kind), ("sha", short(row.sha)),
        ("", compact_time(row.started_at)), ("dim", ago(row.started_at)), ("dim", took(row.duration_ms)), ("", services),
    ]  # fmt: skip


def deploy(deploy: Deploy, stages: list[tuple[str, str, str]], *, color: bool = False) -> str:
    """Everything kept about one deploy; `stages` are (stage, state, detail or time)."""
    ink = Ink(color)
    outcome = _outcome(deploy)
    lines = [f"{ink('strong', f'deploy {text(deploy.id)}')}  {ink(_OUTCOMES.get(outcome, ''), outcome.replace('_', ' '))}"]
    facts = [
        ("kind", deploy.kind),
        ("commit", short(deploy.sha) + (f" (was {short(deploy.previous_sha)})" if deploy.previous_sha else "")),
        ("services", ", ".join(deploy.services)),
        ("by", deploy.requested_by),
        ("started", when(deploy.started_at)),
        ("took", took(deploy.duration_ms)),
        ("crashed in", deploy.crashed_in or ""),
        ("error", deploy.error_summary or ""),
    ]
    known = [(name, said) for name, said in facts if said]
    lines += table([[("dim", name), ("bad" if name == "error" else "", text(said))] for name, said in known], ink, "  ")
    if stages:
        whole = deploy.status in ("deployed", "unchanged")
        lines += ["", *_stages([(n, "done" if whole and state == "start" and n == "stamp" else state, said)
                                for n, state, said in stages], ink)]  # fmt: skip
    commands = [(text(deploy.next), "")] if deploy.next else []
    if lines and commands:
        lines += ["", *next_lines(ink, commands)]
    return joined(lines)


def _stages(stages: Sequence[tuple[str, str, str]], ink: Ink) -> list[str]:
    marks = {"done": ("good", "✓"), "failed": ("bad", "✗")}
    rows: list[list[tuple[str, str]]] = []
    began: dict[str, str] = {}
    for number, (name, state, said) in enumerate(stages):
        if state == "start":
            began[name] = said
            if any(later == name for later, _, _ in stages[number + 1 :]):
                continue
        style, mark = marks.get(state, ("dim", "·"))
        rows.append([(style, mark), ("", text(name)), (style, text(state)), ("dim", _lasted(began.get(name), said))])
    return table(rows, ink, "  ")


def _lasted(began: str | None, said: str) -> str:
    """How long a stage took; what is said of it instead, when that is no time."""
    start, end = moment(began), moment(said)
    if end is None:
        return text(said)
    return took(int((end - start).total_seconds() * 1000)) if start is not None else clock_time(said)


def rescues(rescues: list[Rescue], *, color: bool = False) -> str:
    """Saved bytes, and how to have them back."""
    ink = Ink(color)
    if not rescues:
        return "no rescues: nothing was overwritten that git does not have\n"
    rows = [[("dim", name) for name in ("rescue", "path", "size", "because", "when", "")]]
    for row in rescues:
        rows.append([("sha", text(row.id)), ("", f"{words.whose(row.service)}:{text(row.path)}"), ("", size(row.bytes)),
                     ("", text(row.because)), ("dim", compact_time(row.at)), ("dim", ago(row.at))])  # fmt: skip
    return joined([*table(rows, ink), "", *next_lines(ink, [(f"homeport rescue restore {text(rescues[0].id)}", "")])])


def size(number: int) -> str:
    """Bytes for a person: `812 B`, `3.4 kB`, `12 MB`."""
    amount = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{number} B" if unit == "B" else f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"


def doctor(rows: list[dict[str, Any]], *, color: bool = False) -> str:
    """Each question with its answer, and for what is wrong the command that mends it."""
    ink = Ink(color)
    width = max((len(text(row["name"])) for row in rows), default=0)
    lines = []
    for row in rows:
        style, mark = ("good", "✓") if row["ok"] else ("bad", "✗")
        answer = ink("dim" if row["ok"] else "", text(row["detail"]))
        lines.append(f"{ink(style, mark)} {text(row['name']).ljust(width)}  {answer}")
        if not row["ok"] and row.get("next"):
            lines += next_lines(ink, [(text(row["next"]), "")], " " * (width + 4))
    wrong = sum(1 for row in rows if not row["ok"])
    lines += ["", ink("bad", f"{count(wrong, 'thing')} to mend") if wrong else ink("good", "all is well")]
    return joined(lines)


def setup(said: dict[str, Any], *, color: bool = False) -> str:
    """What each step of a set-up found or did, and what is left for a person."""
    ink = Ink(color)
    width = max((len(text(step["name"])) for step in said["steps"]), default=0)
    lines = [f"{ink('strong', 'setup')}  {text(said['environment'])} on {text(said['host'])}"]
    for step in said["steps"]:
        style, mark = ("good", "✓") if step["ok"] else ("bad", "✗")
        lines.append(f"{ink(style, mark)} {text(step['name']).ljust(width)}  {several(step['done'])}")
        lines += [ink("dim", " " * (width + 4) + text(line)) for line in step["lines"]]
        if not step["ok"] and step["next"]:
            lines += next_lines(ink, [(text(step["next"]), "")], " " * (width + 4))
    ready = f"homeport -e {text(said['environment'])} plan"
    return joined([*lines, "", *next_lines(ink, [(ready, "what a deploy would do")] if said["ok"] else
                                           [("homeport setup", "again, when this is mended")])])  # fmt: skip


def error(fault: HomeportError) -> str:
    """What failed, where, and the command to run next."""
    lines = [f"homeport: {several(fault.what)}"]
    if fault.where:
        lines.append(f"  where: {text(fault.where)}")
    if fault.next:
        lines.append(f"  next: {text(again(fault.next))}")
    return joined(lines)


def diff(text_of_diff: str, color: bool = False, *, escaped: bool | None = None) -> str:
    """A unified diff. `escaped` (as `color` unless said) shows control characters as words, for a terminal;
    without it the diff stays as git wrote it, fit for `git apply`."""
    if not (color if escaped is None else escaped):
        return text_of_diff
    ink = Ink(color)
    lines = text_of_diff.split("\n")
    lines, rest = lines[:-1], lines[-1]
    shown = [ink(_diff_style(line), "\t".join(map(text, line.split("\t")))) + "\n" for line in lines]
    return "".join(shown) + text(rest)


def _diff_style(line: str) -> str:
    if line.startswith(("diff ", "index ", "--- ", "+++ ", "new file", "deleted file", "old mode", "new mode")):
        return "strong"
    return {"+": "added", "-": "removed", "@": "hunk"}.get(line[:1], "")
