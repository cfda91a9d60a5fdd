"""From a request to the exact commit, and whether it may go."""

from __future__ import annotations

from msgspec.structs import replace

from homeport.decide import checking, converging, layout
from homeport.decide.durations import minute
from homeport.flow import tries
from homeport.flow.goals import service_now, with_environment
from homeport.flow.guarding import refuse_onlooker
from homeport.flow.work import ServiceWork, Tools, Work
from homeport.model.config import Config
from homeport.model.deploys import ServiceRecord
from homeport.model.errors import ConfigFault, Refused, UsageFault
from homeport.model.live import PROJECT, Target


def fetch_commit(work: Work, tools: Tools) -> Work:
    """Fetches, resolves the request to one commit of the environment's branch, and reads its configuration.

    A rollback needs no network. Raises Refused (`unreachable`) for a commit the branch does not reach.
    """
    site, request = tools.site, work.deploy.request
    if request.kind == "live":
        return find_running(work, tools)
    if request.kind == "try":
        sha = tries.commit_of_try(work, tools)
    elif request.kind == "rollback" and request.sha is not None:
        sha = request.sha
    elif work.deploy.attempts > 1 and work.deploy.sha is not None:
        sha = work.deploy.sha
    else:
        site.git.fetch(tools.shell)
        sha = _named(request.ref, tools) if request.ref else site.git.tip(site.env.branch)
    if request.kind != "try" and not site.git.reaches(site.env.branch, sha):
        raise Refused(
            f"commit {sha[:12]} is not on branch {site.env.branch}",
            where=f"environment {site.environment}", code="unreachable",
            next=f"git log origin/{site.env.branch}   (merge it there and push first)",
        )  # fmt: skip
    config = config_at(tools, sha)
    deploy = replace(work.deploy, sha=sha)
    # a power cut would only have it found anew, which for a try is the same
    site.store.update(deploy, lasting=request.kind != "try")
    _take_over_renamed(config, work, tools)
    return in_scope(work.having(deploy=deploy, sha=sha, config=config), tools)


def _named(ref: str, tools: Tools) -> str:
    """The commit of a name. Raises Refused (`no-commit`), and says so when a service is called nearly like that."""
    import difflib

    site = tools.site
    try:
        return site.git.resolve(ref)
    except Refused as fault:
        near = difflib.get_close_matches(ref, layout.services_of(site.config, site.environment), 1)
        if fault.code != "no-commit" or not near:
            raise
        raise Refused(f"{fault.what}; did you mean the service {near[0]}?", where=fault.where,
                      next=f"homeport plan {near[0]}", code=fault.code) from fault  # fmt: skip


def _take_over_renamed(config: Config, work: Work, tools: Tools) -> None:
    """A live folder whose service has another name since keeps its record and its edits."""
    targets = layout.targets(config, tools.site.environment)
    known = {record.path: record.name for record in tools.site.store.targets()}
    for name, target in targets.items():
        if name == PROJECT or known.get(target.path, name) == name:
            continue
        old = tools.site.take_over(target, targets.keys())
        if old is not None:
            said = f"{name} was called {old} before: its record and its edits go on under the new name"
            tools.notice(work.deploy.id, said, service=name, code="renamed")


def find_running(work: Work, tools: Tools) -> Work:
    """For a restart or a rebuild: what runs now is what is wanted; nothing is fetched."""
    records = tools.site.store.services()
    wanted = set(work.deploy.request.services)
    shas = {r.sha for n, r in records.items() if r.sha and (not wanted or n in wanted)}
    if not shas:
        raise Refused("nothing was deployed here yet", where=f"environment {tools.site.environment}",
                      next="homeport deploy", code="never-deployed")  # fmt: skip
    sha = sorted(shas)[0] if len(shas) == 1 else tools.site.git.log(tools.site.env.branch, 1)[0]
    work = in_scope(work.having(sha=sha, config=config_at(tools, sha)), tools)
    return work.having(services={n: with_environment(s, tools) for n, s in work.services.items()})


def config_at(tools: Tools, sha: str) -> Config:
    """The configuration that commit brings. Raises ConfigFault when it has none or lacks the environment."""
    site = tools.site
    raw = site.git.file_at(sha, "homeport.toml")
    if raw is None:
        raise ConfigFault("this commit has no homeport.toml", where=sha[:12],
                          next=f"git add homeport.toml, commit and push to {site.env.branch}   (homeport init writes one)",
                          code="no-config")  # fmt: skip
    try:
        config = site.load_config(raw, f"{sha[:12]}:homeport.toml")
    except ConfigFault as fault:
        raise ConfigFault(fault.what, where=fault.where, code=fault.code,
                          next=f"correct it, homeport check, commit and push to {site.env.branch}, then: homeport deploy"
                          ) from fault  # fmt: skip
    if site.environment not in config.environments:
        raise ConfigFault(f"environment {site.environment} is not in this commit's homeport.toml",
                          where=f"{sha[:12]}:homeport.toml", next="homeport check", code="no-environment")  # fmt: skip
    if config.environments[site.environment].branch != site.env.branch:
        raise ConfigFault(
            f"environment {site.environment} follows {site.env.branch} here, "
            f"but {config.environments[site.environment].branch} in this commit",
            where=f"{sha[:12]}:homeport.toml", next="homeport check", code="branch-changed",
        )  # fmt: skip
    site.hide_secrets(config)
    return config


def in_scope(work: Work, tools: Tools) -> Work:
    """The services this deploy is about, each with its target and record, in their declared order."""
    asked = set(work.deploy.request.services)
    known = layout.services_of(work.config, tools.site.environment)
    unknown = sorted(asked - set(known))
    if unknown:
        raise UsageFault(f"no service named {', '.join(unknown)} in environment {tools.site.environment}",
                         where="homeport.toml", next="homeport status", code="no-service")  # fmt: skip
    records = tools.site.store.services()
    services: dict[str, ServiceWork] = {}
    for name in layout.order(work.config, [n for n in known if not asked or n in asked]):
        target: Target | None = layout.target_of(work.config, name)
        record = records.get(name, ServiceRecord(service=name))
        services[name] = service_now(name, work.config.services[name], target, record)
    return work.having(services=services)


def _refuse_held(work: Work, tools: Tools) -> None:
    """A trigger's deploy that was asked for before the hold began waits it out too; the next tick asks again."""
    request = work.deploy.request
    holds = tools.site.store.holds() if request.actor == "trigger" else []
    if request.requested_by == "webhook":
        holds = [hold for hold in holds if not converging.passes(hold)]
    if holds and work.deploy.attempts <= 1:
        hold = max(holds, key=lambda one: one.until)
        raise Refused(f"triggers are on hold until {minute(hold.until)}: {hold.because}", where=f"by {hold.by}, {hold.at}",
                      next="homeport unhold, or homeport deploy by hand", code="held")  # fmt: skip


def pass_gate(work: Work, tools: Tools) -> Work:
    """Blocks, observation and what this version cannot do: said before anything is touched."""
    site = tools.site
    refuse_onlooker(site)
    _refuse_held(work, tools)
    if work.deploy.request.kind != "live":
        for block in site.store.blocks():
            if block.sha == work.sha:
                raise Refused(f"commit {block.sha[:12]} is blocked: {block.because}", where=f"by {block.by}, {block.at}",
                              next=f"homeport unblock {block.sha[:12]}", code="blocked")  # fmt: skip
    for name, service in work.services.items():
        if service.target is not None:
            site.permits.folder(service.target.path)
        if service.service.runtime is not None:
            site.permits.unit(service.service.unit or name)
        if service.service.user is not None:
            site.permits.user(service.service.user)
    fatal = [note for note in checking.unsupported(work.config) if note.fatal]
    if fatal:
        raise ConfigFault(fatal[0].message, where=fatal[0].where, next="homeport check", code="unsupported")
    return tries.leave_alone(work, tools)
