"""The pure core of `homeport init`: a first homeport.toml from what lies in a repository.

It reads, it never asks a machine: what runs on one is brought to it (`Seen`). What it cannot know (where things
live) it leaves as a comment.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from homeport.decide import spelling
from homeport.model.running import Seen

ECOSYSTEMS = ("ecosystem.config.js", "ecosystem.config.cjs", "ecosystem.config.mjs", "ecosystem.json",
              "pm2.config.js", "pm2.json")  # fmt: skip
COMPOSE = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
WORKSPACE = "pnpm-workspace.yaml"
PYTHON = ("pyproject.toml", "requirements.txt")
_APP_KEY = re.compile(r"""(?<![\w$])["']?(name|cwd|script)["']?\s*:\s*(["'`])((?:\\.|(?!\2).)*)\2""")
_COMMENT = re.compile(r"/\*.*?\*/|(?<![:\"'`])//[^\n]*", re.DOTALL)
_ITEM = re.compile(r"""^\s*-\s*["']?([^"'#\n]+?)["']?\s*(?:#.*)?$|["']([^"'\n]+)["']""", re.MULTILINE)
_PROCESS = re.compile(r"^([A-Za-z0-9_-]+):\s*(\S.*)$")


class Found(Struct, kw_only=True):
    """One service as it was found, and in which file."""

    name: str
    source: str
    because: str
    target: str | None = None
    runtime: str | None = None
    unit: str | None = None
    command: str | None = None
    remark: str = ""


def telling(path: str) -> bool:
    """Whether the content of a file says something; of the others the name is enough."""
    last = posixpath.basename(path)
    return last in (*ECOSYSTEMS, *COMPOSE, "package.json", "Procfile", WORKSPACE) or last.endswith(".service")


def first_config(name: str, branch: str, files: Mapping[str, str], running: Sequence[Seen] = ()) -> str:
    """The text of a first homeport.toml; it always loads.

    `files` has contents by repository path (those it has no use for are passed over); files below a folder
    count for that folder. `running` is what runs on the machine of the environment. `name` and `branch` are made valid
    where they are not.
    """
    from homeport.decide import guessing_units as units

    project = slug(name)
    composed, built = units.composed(_named(files, COMPOSE), project)
    services: dict[str, Found] = {}
    for found in [*_pm2(files), *units.unit_files(files), *_procfile(files), *composed, *_workspaces(files),
                  *_packages(files), *_python(files)]:  # fmt: skip
        same = any(found.source == s.source and found.runtime is None for s in services.values())
        if found.name not in services and not same and (found.runtime == "compose" or found.source not in built):
            services[found.name] = found
    left = units.joined(services, running, files)
    valid = not list(spelling.branch(branch, ()))
    lines = [
        "# Which folder of this repository is live where, and what runs it.",
        "# Try it with: homeport check, then homeport plan",
        "",
        "[project]",
        f"name = {_quoted(project)}",
        "",
        "[environments.production]",
        f"branch = {_quoted(branch if valid else 'main')}",
    ]
    for service in services.values():
        lines += ["", *_table(service)]
    if not services:
        lines += ["", *_example(project)]
    lines += ["", *(f"# {_comment(told)}" for told in left)] if left else []
    return "\n".join(lines) + "\n"


def slug(text: str) -> str:
    """The nearest name homeport accepts: `My Shop` becomes `my-shop`; `app` when nothing is left."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).lstrip("._-")[:63].rstrip("._-")
    return plain or "app"


def _quoted(text: str) -> str:
    """A TOML string; what JSON escapes TOML reads the same way, but for DEL and lone surrogates."""
    shown = json.dumps(text.encode("utf-8", "replace").decode(), ensure_ascii=False)
    return shown.replace("\x7f", "\\u007F")


def _comment(text: str) -> str:
    """Text that stays within its comment."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _table(service: Found) -> list[str]:
    lines = [f"# from {_comment(service.because)}", f"[services.{_key(service.name)}]",
             f"source = {_quoted(service.source)}"]  # fmt: skip
    if service.target is not None:
        lines.append(f"target = {_quoted(service.target)}")
    else:
        lines.append(f'# target = "/opt/{_comment(service.name)}"   # the live folder on the server')
    if service.runtime is not None:
        lines.append(f"runtime = {_quoted(service.runtime)}")
    if service.unit is not None:
        lines.append(f"unit = {_quoted(service.unit)}")
    if service.command is not None:
        lines.append(f"command = {_quoted(service.command)}")
    return [*lines, *([f"# {_comment(service.remark)}"] if service.remark else [])]


def _key(name: str) -> str:
    return f'"{name}"' if "." in name else name


def _example(project: str) -> list[str]:
    return [
        "# Nothing here says what runs. In a checkout on the server, homeport init --live asks pm2, systemd and Docker.",
        "# For example:",
        f"# [services.{_key(project)}]",
        '# source = "."',
        f'# target = "/opt/{project}"',
        '# runtime = "pm2"',
    ]


def _pm2(files: Mapping[str, str]) -> list[Found]:
    found: list[Found] = []
    for path, text in _named(files, ECOSYSTEMS):
        for app in _apps(_COMMENT.sub("", text)):
            unit = app.get("name", "")
            if not unit or list(spelling.plain(unit, ())) or unit == "all" or unit.isdecimal() or "${" in unit:
                continue
            cwd = app.get("cwd", "")
            absolute = posixpath.normpath(cwd) if cwd.startswith("/") else None
            live = absolute if absolute is not None and not list(spelling.absolute(absolute, ())) else None
            found.append(Found(
                name=slug(unit), source=_source(posixpath.dirname(path), cwd, app.get("script", ""), files),
                target=live, runtime="pm2", unit=unit, because=path,
            ))  # fmt: skip
    return found


def _apps(text: str) -> list[dict[str, str]]:
    """The name, cwd and script of each app, in whatever order they stand: a key that comes again, or a brace
    that opens between, begins the next app. Best effort: a configuration that computes these is not run."""
    apps: list[dict[str, str]] = [{}]
    end = 0
    for match in _APP_KEY.finditer(text):
        if match[1] in apps[-1] or re.search(r"\}\s*,\s*\{", text[end : match.start()]):
            apps.append({})
        apps[-1][match[1]] = match[3].replace("\\", "")
        end = match.end()
    return [app for app in apps if "name" in app]


def _source(folder: str, cwd: str, script: str, files: Mapping[str, str]) -> str:
    """The folder of the repository an app runs from: its cwd when that is one, else where its script lies."""
    folders = {posixpath.dirname(path) for path in files}
    candidates = [posixpath.normpath(posixpath.join(folder, cwd))] if not cwd.startswith("/") else []
    if cwd.startswith("/"):
        last = posixpath.basename(posixpath.normpath(cwd))
        candidates += [f for f in (last, posixpath.join(folder, last)) if f in folders]
    elif cwd in ("", ".", "./") and "/" in posixpath.normpath(script):
        first = posixpath.normpath(script).split("/")[0]
        candidates.insert(0, posixpath.normpath(posixpath.join(folder, first)))
    for candidate in candidates:
        if not list(spelling.inside(candidate, (), whole=True)):
            return candidate
    return folder or "."


def _procfile(files: Mapping[str, str]) -> list[Found]:
    found = []
    for path, text in _named(files, ("Procfile",)):
        folder = posixpath.dirname(path) or "."
        for line in text.splitlines():
            process = _PROCESS.match(line)
            if process is not None and process[1] != "release":
                found.append(Found(name=slug(process[1]), source=folder, runtime="pm2", because=path,
                                    unit=slug(process[1]), command=process[2].strip()))  # fmt: skip
    return [f for f in found if f.unit != "all" and not (f.unit or "").isdecimal()
            and not list(spelling.command(f.command, ()))]  # fmt: skip


def _workspaces(files: Mapping[str, str]) -> list[Found]:
    """Packages named by the root's `workspaces`, or those of pnpm, that have a `start` script."""
    listed = _json(files.get("package.json", "")).get("workspaces", [])
    patterns = listed.get("packages", []) if isinstance(listed, dict) else listed
    found = []
    of_pnpm = [item[0] or item[1] for item in _ITEM.findall(files.get(WORKSPACE, ""))]
    for pattern in [*(patterns if isinstance(patterns, list) else []), *of_pnpm]:
        if not isinstance(pattern, str) or pattern.startswith("!"):
            continue
        shape = re.escape(pattern.strip("./")).replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
        for path in sorted(files):
            folder, _, last = path.rpartition("/")
            if last == "package.json" and folder and re.fullmatch(shape, folder):
                found += _package(path, files[path])
    return found


def _packages(files: Mapping[str, str]) -> list[Found]:
    paths = sorted((p for p in files if posixpath.basename(p) == "package.json"), key=lambda p: (p.count("/"), p))
    return [found for path in paths if path.count("/") <= 1 for found in _package(path, files[path])]


def _package(path: str, text: str) -> list[Found]:
    package = _json(text)
    scripts = package.get("scripts")
    if not isinstance(scripts, dict) or not isinstance(scripts.get("start"), str):
        return []
    folder = posixpath.dirname(path)
    known = package.get("name")
    name = slug(posixpath.basename(folder) or (known.rpartition("/")[2] if isinstance(known, str) else "web"))
    remark = 'build = { run = "npm ci && npm run build", outputs = ["dist"] }   # when it has a target'
    return _usable([Found(name=name, source=folder or ".", runtime="pm2", unit=name, command="npm start",
                           because=path, remark=remark if isinstance(scripts.get("build"), str) else "")])  # fmt: skip


def _python(files: Mapping[str, str]) -> list[Found]:
    found = []
    for path, _ in _named(files, PYTHON):
        folder = posixpath.dirname(path)
        found.append(Found(
            name=slug(posixpath.basename(folder) or "web"), source=folder or ".", because=path,
            remark='runtime = "pm2" and command = [".venv/bin/python", "-m", "app"] start it; name your own module',
        ))  # fmt: skip
    return _usable(found)


def _usable(found: list[Found]) -> list[Found]:
    return [f for f in found if not list(spelling.inside(f.source, (), whole=True))
            and f.unit != "all" and not (f.unit or "").isdecimal()]  # fmt: skip


def _named(files: Mapping[str, str], names: tuple[str, ...]) -> list[tuple[str, str]]:
    """The files of these names at the root or one folder down, the root first."""
    chosen = [p for p in files if posixpath.basename(p) in names and p.count("/") <= 1]
    return [(path, files[path]) for path in sorted(chosen, key=lambda p: (p.count("/"), p))]


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
