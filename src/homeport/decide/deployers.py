"""Other deployers, from the texts that start them: workflows, cron tables, units, scripts, pm2 ecosystem files. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from msgspec import Struct

_COPIES = re.compile(r"(?:^|[\s;&|('\"`/])(rsync|scp|sftp|lftp)(?=\s)")
_SSH = re.compile(r"(?:^|[\s;&|('\"`])ssh\s+\S")
_PULLS = re.compile(r"\bgit\b[^#;&|]*\b(?:pull|reset\s+--hard|checkout\s+-f)\b|\bdocker[ -]compose\b[^#;&|]*\bpull\b")
_ACTIONS = re.compile(r"uses:\s*['\"]?([\w.-]+/[\w.-]*(?:ssh|scp|rsync|sftp|ftp)[\w.-]*)", re.I)
_DEPLOY_SECTION = re.compile(r"(?:^|[{,\s])['\"]?deploy['\"]?\s*:\s*\{", re.M)
_ABSOLUTE = re.compile(r"(?:^|[\s='\";&|(])(/[\w./@+-]+)")
_SCRIPT = re.compile(r"(?:^|[\s='\";&|(])(?:\./)?((?:[\w@+-][\w.@+-]*/)*[\w@+-][\w.@+-]*\.(?:sh|bash))\b")
SHOWN = 100
"""Characters of a line that are shown."""


class OtherDeployer(Struct, frozen=True, kw_only=True):
    """One line that looks as if something else deployed."""

    where: str
    """`file:line`."""
    line: str


def in_workflow(path: str, text: str) -> list[OtherDeployer]:
    """Steps that copy to another machine or run something there. A line that calls homeport there is none."""
    return _lines(path, text, lambda line: bool(_COPIES.search(line) or _SSH.search(line) or _ACTIONS.search(line)))


def in_schedule(path: str, text: str) -> list[OtherDeployer]:
    """Lines of a cron table, a unit or a script that bring code to this machine."""
    return _lines(path, text, lambda line: bool(_PULLS.search(line) or _COPIES.search(line)))


def in_ecosystem(path: str, text: str) -> list[OtherDeployer]:
    """The `deploy` section of a pm2 ecosystem file, which `pm2 deploy` uses."""
    found = _DEPLOY_SECTION.search(text)
    if found is None:
        return []
    number = text.count("\n", 0, found.end()) + 1
    return [OtherDeployer(where=f"{path}:{number}", line="the `deploy` section of pm2")]


def scripts_in(text: str) -> list[str]:
    """Absolute paths that commands of a cron table or a unit name; each may be a script that deploys."""
    lines = (line for line in text.splitlines() if not _is_remark(line))
    return list(dict.fromkeys(path for line in lines for path in _ABSOLUTE.findall(line)))


def scripts_of(text: str) -> list[str]:
    """Shell scripts of the repository that a workflow runs, by their paths in it; a step may copy by one of them."""
    lines = (line for line in text.splitlines() if not _is_remark(line))
    return list(dict.fromkeys(path for line in lines for path in _SCRIPT.findall(line)))


def _lines(path: str, text: str, tells: Callable[[str], bool]) -> list[OtherDeployer]:
    found, waiting, start = [], "", 1
    for number, line in enumerate(text.splitlines(), 1):
        if not waiting:
            start = number
        if line.rstrip().endswith("\\"):
            waiting += line.rstrip()[:-1] + " "
            continue
        whole, waiting = waiting + line, ""
        if not _is_remark(whole) and "homeport" not in whole and tells(whole):
            found.append(OtherDeployer(where=f"{path}:{start}", line=" ".join(whole.split())[:SHOWN]))
    return found


def _is_remark(line: str) -> bool:
    return line.lstrip().startswith("#")
