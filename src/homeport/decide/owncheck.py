"""Which of the project's own checks (`[checks.N]`) a commit has to pass. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from homeport.model.config import CiCheck
from homeport.model.patterns import Matcher


def due(checks: Mapping[str, CiCheck], changed: Sequence[str] | None) -> list[str]:
    """In the order of the file; those with `paths` only when one of them changed. `changed` None: nothing was deployed
    yet, so all of them. One with `cron` and without `paths` runs by the clock alone."""
    return [name for name, check in checks.items() if check.cron is None or check.paths
            if changed is None or not check.paths or any(map(Matcher(check.paths).match, changed))]  # fmt: skip


def mark(name: str, check: CiCheck, tree: str) -> str:
    """Under what a result is remembered: the same files and the same command need no second run."""
    said = json.dumps([name, check.run, check.user, tree])
    return "check:" + hashlib.sha256(said.encode()).hexdigest()[:40]
