"""What an environment needs of a machine, and the host file that allows just that. Pure: texts in, texts out."""

from __future__ import annotations

import json
import os.path
import re
import tomllib

import msgspec

from homeport.decide import authorizing, layout, loading
from homeport.model.config import Config, HostConfig
from homeport.model.errors import ConfigFault

LISTS = ("environments", "roots", "users", "units")
_HEAD = """\
# Who this machine is, and what homeport may do here. It belongs to the machine, not to the repository: no commit
# changes it. `homeport setup --widen` adds what a new service needs; everything else is by hand.
"""
_WHY = {
    "environments": "no other environment is served here",
    "roots": "live folders lie below one of these",
    "users": "whom homeport may become",
    "units": "processes it may touch",
}


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """The lists of a host file, each as short as the environment allows."""

    environments: list[str]
    roots: list[str]
    users: list[str]
    units: list[str]


def needs_of(config: Config, environment: str, own_user: str) -> Needs:
    """What this environment needs; `own_user` is who homeport runs as, and needs no entry."""
    services = layout.services_of(config, environment)
    folders = {os.path.dirname(target.path) for target in layout.targets(config, environment).values()}
    users = {service.user for service in services.values()} | {action.user for action in config.actions}
    for service in services.values():
        if service.env_file is not None and os.path.isabs(service.env_file):
            folders.add(os.path.dirname(service.env_file))
        if service.owner is not None:
            users.add(service.owner.partition(":")[0])
    if config.migrate is not None:
        users.add(config.migrate.user)
    units = {service.unit or name for name, service in services.items() if service.runtime is not None}
    roots = [f for f in folders if not any(f != other and below(f, other) for other in folders)]
    return Needs(
        environments=[environment], roots=sorted(roots), units=sorted(units),
        users=sorted(user for user in users if user and user != own_user and not user.isdigit()),
    )  # fmt: skip


def below(path: str, root: str) -> bool:
    return path.startswith(root.rstrip("/") + "/")


def lacking(host: HostConfig, needs: Needs, *, as_root: bool) -> dict[str, list[str]]:
    """What the lists of a host file do not hold yet, by list. An empty list limits nobody but root."""
    from fnmatch import fnmatchcase

    found = {
        "environments": [e for e in needs.environments if host.environments and e not in host.environments],
        "roots": [r for r in needs.roots if not any(r == root or below(r, root) for root in host.roots)],
        "users": [u for u in needs.users if u not in host.users],
        "units": [u for u in needs.units if not any(fnmatchcase(u, pattern) for pattern in host.units)],
    }
    limited = {key: rows for key, rows in found.items() if as_root or key == "environments" or getattr(host, key)}
    return {key: rows for key, rows in limited.items() if rows}


def first_text(name: str, needs: Needs, *, observe: bool) -> str:
    """A new host file."""
    lines = [_HEAD + f"name = {_quoted(name)}"]
    if observe:
        lines.append("observe = true    # true: look and report only")
    lines += [f"{key} = {_list(getattr(needs, key))}    # {_WHY[key]}" for key in LISTS]
    return "\n".join(lines) + "\n"


def widened(text: str, more: dict[str, list[str]], observe: bool | None) -> str:
    """The file with more entries and another `observe`; everything else stays as it is written.

    Raises ConfigFault (code `host-file`) when that cannot be done safely; the lines are then for a person.
    """
    before = tomllib.loads(text)
    wanted = dict(before)
    for key, rows in more.items():
        wanted[key] = [*before.get(key, []), *rows]
        text = _with_key(text, key, _list(wanted[key]))
    if observe is not None and observe != before.get("observe", False):
        wanted["observe"] = observe
        text = _with_key(text, "observe", "true" if observe else "false")
    try:
        sound = tomllib.loads(text) == wanted
    except tomllib.TOMLDecodeError:
        sound = False
    if not sound:
        lines = "; ".join(f"{key} = {_list(wanted[key])}" for key in more)
        raise ConfigFault("the host file is written in a way that is not changed by a program", where="host.toml",
                          next=f"change it by hand: {lines}", code="host-file")  # fmt: skip
    loading.load_host(text, "host.toml")
    return text


def with_bound_key(text: str, token: str, public: str) -> str:
    """The file with `[keys.NAME]` for that key; as it is where that stands there already.

    Raises ConfigFault (code `host-file`) where the key is bound to another token: that is for a person to change.
    """
    keys = loading.load_host(text, "host.toml").keys
    for name, bound in keys.items():
        if bound.public is not None and authorizing.public_key(bound.public) == public:
            if bound.token == token:
                return text
            raise ConfigFault(f"this key is bound to the token {bound.token} as keys.{name}", where="host.toml",
                              next=f"change it by hand: keys.{name}.token = {_quoted(token)}, then: homeport setup",
                              code="host-file")  # fmt: skip
    name = next(name for name in (token, *(f"{token}-{n}" for n in range(2, len(keys) + 3))) if name not in keys)
    shown = _quoted(name) if "." in name else name
    glue = "" if text.endswith("\n") else "\n"
    more = f"{text}{glue}\n[keys.{shown}]\ntoken = {_quoted(token)}\npublic = {_quoted(public)}\n"
    wanted = tomllib.loads(text)
    wanted["keys"] = {**wanted.get("keys", {}), name: {"token": token, "public": public}}
    try:
        sound = tomllib.loads(more) == wanted
    except tomllib.TOMLDecodeError:
        sound = False
    if not sound:
        raise ConfigFault("the host file is written in a way that is not changed by a program", where="host.toml",
                          next=f"add by hand: keys.{shown} with token and public", code="host-file")  # fmt: skip
    loading.load_host(more, "host.toml")
    return more


def _with_key(text: str, key: str, value: str) -> str:
    """Sets a key of the top level: where it stands, or after the name."""
    table = re.search(r"^\s*\[", text, re.M)
    cut = table.start() if table else len(text)
    top, rest = text[:cut], text[cut:]
    there = re.compile(rf'^{key}[ \t]*=[ \t]*(\[(?:[^\]"]|"[^"]*")*\]|true|false)', re.M)
    if there.search(top):
        return there.sub(lambda _: f"{key} = {value}", top, count=1) + rest
    return re.sub(r"^(name[ \t]*=.*)$", lambda found: f"{found[1]}\n{key} = {value}", top, count=1, flags=re.M) + rest


def _list(values: list[str]) -> str:
    return f"[{', '.join(map(_quoted, values))}]"


def _quoted(value: str) -> str:
    """A TOML basic string; JSON's escapes are a subset of TOML's."""
    return json.dumps(value)
