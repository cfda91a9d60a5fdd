"""From `[forge]` and the repository's own address to the right client."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from homeport.doors.forges.gitea import Gitea
from homeport.doors.forges.github import GitHub
from homeport.doors.forges.gitlab import GitLab
from homeport.doors.forges.http import Timing
from homeport.model.config import Forge as ForgeConfig
from homeport.model.errors import ConfigFault
from homeport.model.forge import Cache, Forge, NewRequest

_HOSTED = {"github": "https://github.com", "gitlab": "https://gitlab.com", "gitea": ""}
_SCP = re.compile(r"(?:[^@/:]+@)?(?P<host>[A-Za-z0-9.-]+):(?!//)(?P<path>.+)", re.ASCII)
_PART = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*", re.ASCII)


def connect(config: ForgeConfig, token: str, cache: Cache, *, remote: str | None = None,
            timing: Timing | None = None) -> Forge:  # fmt: skip
    """`remote` is the git address of the repository, for what `[forge]` leaves out. Raises ConfigFault."""
    web, repo = address(config, remote)
    if config.kind == "github":
        return GitHub(repo, token, cache, web=web, timing=timing)
    if config.kind == "gitea":
        return Gitea(repo, token, cache, web=web, timing=timing)
    return GitLab(repo, token, cache, web=web, timing=timing)


def page(config: ForgeConfig | None, remote: str, asked: NewRequest) -> str | None:
    """The page on which a person opens a request by hand; without a configuration only for the two forges that
    everybody knows by name. Asks nobody."""
    if config is None:
        host = _of_remote(remote)[0]
        kind = {"github.com": "github", "ssh.github.com": "github", "gitlab.com": "gitlab"}.get(host)
        if kind is None:
            return None
        config = ForgeConfig(kind="github" if kind == "github" else "gitlab")
    forge = connect(config, "nobody-is-asked", _Forgetful(), remote=remote)
    try:
        return forge.new_request_page(asked)
    finally:
        forge.close()


class _Forgetful:
    """Satisfies `Cache` where nothing is asked."""

    def cached(self, key: str) -> str | None:
        del key
        return None

    def cache(self, key: str, value: str) -> None:
        del key, value


def address(config: ForgeConfig, remote: str | None) -> tuple[str, str]:
    """The forge's web address, and the repository's name on it."""
    host, path = _of_remote(remote or "")
    repo = (config.repo or path).strip("/").removesuffix(".git")
    web = (config.url or _web(config.kind, host)).rstrip("/")
    parts = repo.split("/")
    enough = len(parts) >= 2 if config.kind == "gitlab" else len(parts) == 2
    if not enough or not all(_PART.fullmatch(part) and part not in (".", "..") for part in parts):
        raise ConfigFault("the forge's repository is not known", where="forge.repo",
                          next='write it as "owner/name"', code="forge-repo")  # fmt: skip
    try:
        found = urlsplit(web)
        usable = found.scheme in ("http", "https") and bool(found.hostname) and found.port != 0
    except ValueError:
        usable = False
    if not usable or found.username is not None or found.query or found.fragment:
        raise ConfigFault("the forge's address is not known, or is none", where="forge.url",
                          next='write it as "https://git.example.com"', code="forge-url")  # fmt: skip
    return web, repo


def commit_page(config: ForgeConfig | None, remote: str, sha: str) -> str | None:
    """Where the forge shows a commit; None when it cannot be told."""
    if config is None:
        return None
    try:
        web, repo = address(config, remote)
    except ConfigFault:
        return None
    return f"{web}/{repo}/{'-/' if config.kind == 'gitlab' else ''}commit/{sha}"


def _web(kind: str, host: str) -> str:
    """Of a git host; names without a dot are aliases in somebody's ssh configuration, `ssh.github.com` is GitHub."""
    hosted = _HOSTED[kind]
    if hosted and ("." not in host or f".{host}".endswith(hosted.replace("https://", "."))):
        return hosted
    return f"https://{host}" if host else ""


def _of_remote(remote: str) -> tuple[str, str]:
    """Host (without user and ssh port) and path of a git address; empty for a path or what is none."""
    if "://" in remote:
        try:
            parts = urlsplit(remote)
            port = f":{parts.port}" if parts.port and parts.scheme in ("http", "https") else ""
        except ValueError:
            return "", ""
        return (f"{parts.hostname}{port}" if parts.hostname else ""), parts.path.strip("/")
    match = _SCP.fullmatch(remote)
    return (match["host"], match["path"]) if match else ("", "")
