"""For `homeport init`: services of Compose files and unit files, and what a machine knows on which they run."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence

from homeport.decide import spelling
from homeport.decide.guessing import Found, slug
from homeport.model.running import Seen

_SERVICE_LINE = re.compile(r"^(?:  |    )([A-Za-z0-9][A-Za-z0-9_.-]*):\s*(?:#.*)?$")
_CONTEXT = re.compile(r"""^\s+(?:build|context):\s*["']?(\.?[A-Za-z0-9_./-]+)["']?\s*(?:#.*)?$""", re.MULTILINE)
_SETTING = re.compile(r"^(\w+)\s*=\s*(.*)$", re.MULTILINE)


def composed(files: Iterable[tuple[str, str]], project: str) -> tuple[list[Found], set[str]]:
    """One service for each Compose file with all that it runs, and the folders of which it builds images."""
    found, built = [], set()
    for path, text in files:
        folder = posixpath.dirname(path)
        built |= {posixpath.normpath(posixpath.join(folder, one)) for one in _CONTEXT.findall(text)}
        units = [name for name in _compose_services(text) if not list(spelling.plain(name, ()))]
        if units and not list(spelling.inside(folder or ".", (), whole=True)):
            name = slug(posixpath.basename(folder)) if folder else project
            found.append(Found(
                name=name, source=folder or ".", runtime="compose", unit=" ".join(units), because=path,
                target=f"/opt/{project}/{name}" if folder else f"/opt/{project}",
                remark="the target is a guess: the live folder with the Compose file, on the server",
            ))  # fmt: skip
    return found, built - {"."}


def _compose_services(text: str) -> list[str]:
    """The keys right below `services:`, read by their indentation."""
    names: list[tuple[int, str]] = []
    inside = False
    for line in text.splitlines():
        if line[:1].strip() and not line.startswith("#"):
            inside = line.startswith("services:")
        elif inside and (found := _SERVICE_LINE.match(line)):
            names.append((len(line) - len(line.lstrip()), found[1]))
    least = min((indent for indent, _ in names), default=0)
    return [name for indent, name in names if indent == least]


def unit_files(files: Mapping[str, str]) -> list[Found]:
    """Units of systemd that lie in the repository, wherever; templates are passed over."""
    found = []
    for path in sorted(path for path in files if path.endswith(".service")):
        unit = posixpath.basename(path).removesuffix(".service")
        told = dict(_SETTING.findall(files[path].partition("[Service]")[2]))
        if "ExecStart" not in told or "@" in unit or list(spelling.plain(unit, ())):
            continue
        works = told.get("WorkingDirectory", "").strip().removeprefix("-")
        found.append(Found(name=slug(unit), source=_near(files, works, unit), target=_live(works), runtime="systemd",
                           unit=unit, because=path))  # fmt: skip
    return found


def joined(services: dict[str, Found], running: Sequence[Seen], files: Mapping[str, str]) -> list[str]:
    """Fills in where each service lives, from what runs, and adds those that only the machine knows; what has no place in
    the repository is told in a sentence each."""
    left = []
    for one in running:
        live = _live(one.folder)
        same = next((s for s in services.values() if _is(s, one)), None)
        source = same.source if same is not None else _near(files, one.folder, one.unit)
        if live is None or list(spelling.plain(one.unit, ())):
            continue
        if same is not None:
            same.target, same.runtime, same.unit, same.remark = live, one.runtime, one.unit, ""
            same.command = None  # it is registered
            same.because += f", and what {one.runtime} runs here"
        elif source != "." and slug(one.unit) not in services:
            services[slug(one.unit)] = Found(name=slug(one.unit), source=source, target=live, runtime=one.runtime,
                                             unit=one.unit, because=f"what {one.runtime} runs here")  # fmt: skip
        else:
            left.append(f"{one.runtime} also runs {one.unit} in {one.folder}: no folder of the repository is called so")
    return left


def _is(service: Found, one: Seen) -> bool:
    """The same unit, or, for one that names no runtime yet or only a likely one, the folder of that name."""
    if service.runtime == one.runtime and one.runtime == "compose":
        return set((service.unit or "").split()) >= set(one.unit.split())
    if service.runtime == one.runtime and service.unit == one.unit:
        return True
    likely = service.runtime is None or service.because.endswith(("package.json", "Procfile"))
    return likely and service.target is None and posixpath.basename(service.source) == posixpath.basename(one.folder)


def _near(files: Mapping[str, str], works: str, unit: str) -> str:
    """The folder of the repository that is called like the one where the unit works, or like the end of its name."""
    folders = sorted({posixpath.dirname(path) for path in files} - {""}, key=lambda f: (f.count("/"), f))
    for name in (posixpath.basename(posixpath.normpath(works)) if works else "", unit, unit.rpartition("-")[2]):
        for folder in folders:
            if name and posixpath.basename(folder) == name and not list(spelling.inside(folder, (), whole=True)):
                return folder
    return "."


def _live(folder: str) -> str | None:
    path = posixpath.normpath(folder) if folder.startswith("/") else None
    return path if path is not None and path != "/" and not list(spelling.absolute(path, ())) else None
