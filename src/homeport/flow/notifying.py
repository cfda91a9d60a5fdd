"""After a deploy: what is to be told goes into the outbox, and from there to its channel, by a process of its own."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from homeport.decide import notices
from homeport.flow.site import Site
from homeport.flow.telling import log_tail
from homeport.model.config import Config, Secret
from homeport.model.deploys import Deploy
from homeport.model.errors import Busy, HomeportError
from homeport.model.forge import DEPLOY_STATUS, Status
from homeport.model.notices import Facts, Letter, Message

PATIENCE = 300.0
"""Seconds that one sending process keeps trying; the next deploy or tick of a trigger goes on."""
TAIL = 15


def note(site: Site, deploy: Deploy, config: Config) -> int:
    """Puts what this ended deploy is to tell into the outbox; how many letters. Never raises: a deploy ends as it did."""
    letters: list[Letter] = []
    try:
        letters += _status(site, deploy, config)
        if config.notify is not None and config.notify.urls:
            facts = facts_of(site, deploy, config)
            how = notices.outcome(facts, config.notify.quiet_paths)
            if how != "suppressed" and (not config.notify.on or how in config.notify.on):
                told = notices.message(facts, how)
                letters += [Letter(deploy=deploy.id, channel=url, message=told) for url in config.notify.urls]
        if letters:
            site.outbox.put(letters, now_of(site))
    except (HomeportError, OSError) as fault:
        site.store.audit("homeport", "notify", f"{deploy.id}: nothing could be told: {fault}")
        return 0
    return len(letters)


def facts_of(site: Site, deploy: Deploy, config: Config) -> Facts:
    before = next((d for d in site.store.history(20) if d.id != deploy.id and d.state == "done" and _counts(d)), None)
    subject, author = ("", "")
    if deploy.sha is not None and site.git.has(deploy.sha):
        subject, author = site.git.subject(deploy.sha), site.git.author(deploy.sha)
    same = before is not None and (before.status, before.sha, before.error_code) == (
        deploy.status, deploy.sha, deploy.error_code)  # fmt: skip
    return Facts(
        project=site.project, environment=site.environment, host=site.host, deploy=deploy.id, kind=deploy.kind,
        status=deploy.status or "failed", sha=deploy.sha, previous_sha=deploy.previous_sha, subject=subject, author=author,
        services=deploy.services, paths=_paths(site, deploy), duration_ms=deploy.duration_ms or 0,
        error=deploy.error_summary or "", error_code=deploy.error_code or "", next=deploy.next or "",
        requested_by=deploy.requested_by, page=site.commit_page(config, deploy.sha) if deploy.sha else None,
        tail=tuple(log_tail(site.journal_path(deploy.id)).splitlines()[-TAIL:]), repeated=same,
        recovered=before is not None and before.status in ("failed", "rolled_back"), migrates=config.migrate is not None,
    )  # fmt: skip


def _counts(deploy: Deploy) -> bool:
    """It says whether the environment was well before."""
    return deploy.kind not in ("restart", "migrate") and deploy.status not in ("unchanged", "superseded", "cancelled")


def _paths(site: Site, deploy: Deploy) -> tuple[str, ...]:
    before, after = deploy.previous_sha, deploy.sha
    if before is None or after is None or not site.git.has(before) or not site.git.has(after):
        return ()
    return tuple(change.path for change in site.git.changes(before, after))


def _status(site: Site, deploy: Deploy, config: Config) -> list[Letter]:
    """A commit status for the forge, for deploys of commits that came as far as to be tried."""
    if config.forge is None or config.forge.token is None or deploy.kind != "commit" or deploy.sha is None:
        return []
    if deploy.status not in ("deployed", "failed", "rolled_back"):
        return []
    said: Literal["passed", "failed"] = "passed" if deploy.status == "deployed" else "failed"
    words = f"{deploy.status} on {site.host} in {notices.duration(deploy.duration_ms or 0)}"
    more = f": {deploy.error_summary}" if said == "failed" and deploy.error_summary else ""
    status = Status(name=f"{DEPLOY_STATUS}/{site.environment}", verdict=said, text=words + more)
    return [Letter(deploy=deploy.id, channel=None, status=status, sha=deploy.sha)]


def deliver(site: Site, patience: float = PATIENCE) -> int:
    """Sends what is due, and tries again for a while what is not taken; how many letters still wait then."""
    try:
        with site.outbox_lock.hold(wait=False):
            _deliver(site, patience)
    except Busy:
        pass  # another process sends already, and sees what was put in meanwhile
    return site.outbox.waiting()


def _deliver(site: Site, patience: float) -> None:
    until = site.clock.monotonic() + patience
    while True:
        for letter in site.outbox.due(now_of(site)):
            _send(site, letter)
        if not site.outbox.waiting() or site.clock.monotonic() >= until:
            return
        site.clock.sleep(1.0)


def _send(site: Site, letter: Letter) -> None:
    try:
        if letter.channel is not None and letter.message is not None:
            site.channel.send(letter.channel, letter.message)
        elif letter.status is not None and letter.sha is not None:
            forge = site.forge(site.config)
            if forge is not None:
                forge.set_status(letter.sha, letter.status)
    except HomeportError as fault:
        now = now_of(site)
        if notices.is_old_news(letter.since, letter.attempts, now):
            site.store.audit("homeport", "notify", f"{letter.deploy}: given up: {fault.what}")
            site.outbox.sent(letter)
            return
        site.outbox.failed(letter, now + notices.wait(letter.attempts + 1))
        return
    site.outbox.sent(letter)


def test(site: Site) -> list[tuple[str, str]]:
    """Sends a message to every channel; (kind of channel, what was wrong or nothing) each."""
    notify = site.config.notify
    told = Message(outcome="condensed", title=f"{site.project} {site.environment}: a test",
                   text=f"homeport on {site.host} can reach this channel")  # fmt: skip
    found = []
    for url in notify.urls if notify is not None else []:
        try:
            site.channel.send(url, told)
            found.append((_shown(url), ""))
        except HomeportError as fault:
            found.append((_shown(url), fault.what))
    return found


def _shown(url: Secret | str) -> str:
    """A channel without what is secret in its address."""
    if isinstance(url, Secret):
        return f"env {url.env}" if url.env else f"file {url.file}"
    return url.partition("://")[0]


def now_of(site: Site) -> float:
    return datetime.fromisoformat(site.clock.now()).timestamp()


def settings_of(site: Site, deploy: Deploy) -> Config:
    """The configuration that says who is told: that of the deployed commit, else the newest one known."""
    raw = site.git.file_at(deploy.sha, "homeport.toml") if deploy.sha and site.git.has(deploy.sha) else None
    if raw is None:
        return site.config
    try:
        return site.load_config(raw, "homeport.toml")
    except HomeportError:
        return site.config


def after(site: Site, deploy: Deploy) -> None:
    """Called by the runner when a deploy has ended and everybody who waits has been answered."""
    config = settings_of(site, deploy)
    if note(site, deploy, config) or site.outbox.waiting():
        site.start_sending()
