"""Waits until the commit has passed its gate on the forge (D2 to D4); nothing is touched meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from homeport.decide import gating
from homeport.decide.gating import Closed, Decision, Open, Waiting
from homeport.flow.site import Site
from homeport.flow.work import Tools, Work
from homeport.model.config import Config, Gate
from homeport.model.errors import Cancelled, ConfigFault, GateClosed
from homeport.model.forge import CHECK_STATUS, CheckRun, Forge, ForgeFault, GoOn

GATED = ("commit",)
"""Kinds that pass the gate: what goes back, or is live already, was there before."""
LOOK = 0.2
"""Seconds between two looks at a cancel while waiting."""
LAST_LOOK = 10.0
"""Seconds that a silent forge has in a look which begins at the end of the gate's time."""
WOKEN = "gate-woken"
"""Where a webhook leaves word that something ended on the forge: then it is asked at once."""


def pass_checks(work: Work, tools: Tools) -> Work:
    """Raises GateClosed (codes `gate-failed`, `gate-timeout`, `gate-forge`), Cancelled (`cancelled`, `superseded`)."""
    gate = work.config.gate
    if gate is None or work.deploy.kind not in GATED or work.sha is None:
        return work
    forge = tools.site.forge(work.config)
    if forge is None:
        raise ConfigFault("the gate needs a forge to ask, and a token for it", where="homeport.toml: gate",
                          next="write [forge] kind and token", code="no-forge")  # fmt: skip
    try:
        _until_open(gate, forge, work, work.sha, tools)
    finally:
        forge.close()
    return work


def _until_open(gate: Gate, forge: Forge, work: Work, sha: str, tools: Tools) -> None:
    clock, seen, told = steady(tools.site), first_seen(tools.site, sha), ""
    while True:
        word = tools.site.store.cached(WOKEN)
        found = _look(gate, forge, work, sha, seen, clock(), tools)
        if isinstance(found, Open):
            names = ", ".join(found.passed[:5]) or "nothing was reported"
            tools.notice(work.deploy.id, f"gate open: {names}", code="gate")
            return
        if isinstance(found, Closed):
            raise GateClosed(found.why, where=f"gate of {sha[:12]}", next="homeport deploy, when the checks are green",
                             code="gate-timeout" if found.timed_out else "gate-failed")  # fmt: skip
        if found.why != told:
            tools.notice(work.deploy.id, f"gate: {found.why}", code="gate")
            told = found.why
        _wait(found.until - clock(), word, work, tools)


def reported(forge: Forge, config: Config, sha: str) -> list[CheckRun]:
    """What others say of the commit: what this environment runs itself is tried again in the next stage."""
    own = {CHECK_STATUS + name for name in config.checks}
    return [check for check in forge.checks(sha) if check.name not in own]


def _look(gate: Gate, forge: Forge, work: Work, sha: str, seen: float, now: float, tools: Tools) -> Decision:
    """A forge that does not answer keeps the gate shut; when it says so, until then."""
    forge.attend(_attending(seen + float(gate.timeout) - now, work, tools))
    try:
        return gating.decide(gate, reported(forge, work.config, sha), now, seen, work.deploy.request.run)
    except ForgeFault as fault:
        deadline = seen + float(gate.timeout)
        if fault.until is None and fault.code in ("forge-denied", "forge-missing", "forge-refused"):
            raise GateClosed(fault.what, where=fault.where, next=fault.next, code="gate-forge") from fault
        if now >= deadline:
            raise GateClosed(f"the forge could not be asked: {fault.what}", where=fault.where,
                             next="homeport deploy, when it answers again", code="gate-timeout") from fault  # fmt: skip
        return Waiting(until=min(max(fault.until or 0, now + gating.POLL), deadline), why=fault.what)


def _attending(left: float, work: Work, tools: Tools) -> GoOn:
    """For a look that begins with so many seconds left: while the forge is silent, a cancel and the gate's own limit end
    it. A look that begins late has a few seconds: a forge that answers in them is heard."""
    clock = tools.site.clock
    ends = clock.monotonic() + max(left, LAST_LOOK)

    def go_on() -> None:
        _still_wanted(work, tools)
        if clock.monotonic() > ends:
            raise GateClosed("the forge could not be asked: it did not answer in time", code="gate-timeout",
                             where=f"gate of {(work.sha or '')[:12]}",
                             next="homeport deploy, when it answers again")  # fmt: skip

    return go_on


def _wait(seconds: float, word: str | None, work: Work, tools: Tools) -> None:
    """Until it is time to look again, or a webhook brings another word than the one before the last look."""
    store, clock = tools.site.store, tools.site.clock
    ends = clock.monotonic() + seconds
    while clock.monotonic() < ends and store.cached(WOKEN) == word:
        _still_wanted(work, tools)
        clock.sleep(LOOK)


def _still_wanted(work: Work, tools: Tools) -> None:
    """Raises Cancelled when it was cancelled, or a newer one waits."""
    store = tools.site.store
    asked = store.cancel_asked(work.deploy.id)
    if asked:
        raise Cancelled(f"cancelled by {asked}", where="gate", code="cancelled")
    newer = store.waiting()
    if newer is not None and newer.request.ref is None and work.deploy.request.ref is None and newer.kind == "commit":
        raise Cancelled(f"a newer deploy waits: {newer.id}", where="gate", next=f"homeport logs -f {newer.id}",
                        code="superseded")  # fmt: skip


def first_seen(site: Site, sha: str) -> float:
    """When this environment first looked at the commit, across processes. Unix time."""
    key = f"gate-first-seen:{site.environment}:{sha}"
    known = site.store.cached(key)
    if known is not None:
        return float(known)
    now = unix(site)
    site.store.cache(key, str(now))
    return now


def steady(site: Site) -> Callable[[], float]:
    """The time from now on, which goes on evenly though somebody sets the clock. Unix time."""
    wall, began = unix(site), site.clock.monotonic()
    return lambda: wall + site.clock.monotonic() - began


def unix(site: Site) -> float:
    return datetime.fromisoformat(site.clock.now()).timestamp()
