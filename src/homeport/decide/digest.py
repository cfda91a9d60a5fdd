"""Keys that say whether two builds, environments or sets of watched files are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import msgspec

from homeport.model.config import Service
from homeport.model.envfile import fingerprint, parse
from homeport.model.live import Entry
from homeport.model.paths import to_bytes
from homeport.model.patterns import Matcher


def watched(listing: Mapping[str, Entry], patterns: Sequence[str]) -> str:
    """Over names, modes and contents of every path that the patterns match; the same for any order."""
    matcher = Matcher(patterns)
    digest = hashlib.sha256()
    for path in sorted(p for p in listing if matcher.match(p)):
        entry = listing[path]
        digest.update(b"%s %s " % (entry.mode.encode(), entry.oid.encode()) + to_bytes(path) + b"\0")
    return digest.hexdigest()


def environment(service: Service, env_file: bytes | None) -> str:
    """Over everything a service's process is started with beside its files. The bytes of the env file only enter
    the digest, never a message."""
    said: list[object] = [
        service.command, service.cwd, sorted(service.env.items()), service.user, service.home, service.path,
        service.unit, service.runtime, service.listen, service.replicas,
        None if env_file is None else fingerprint(parse(env_file.decode("utf-8", "replace"))),
    ]  # fmt: skip
    if service.supervised:
        said += [service.handoff, service.signal, float(service.stop_timeout), float(service.drain),
                 service.ready and msgspec.structs.asdict(service.ready)]  # fmt: skip
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def images(service: Service, tree: str, environment: str, uses: Sequence[str] = ()) -> str:
    """The key of the images that a service's containers run, where no command of the project builds anything."""
    said = [tree, list(uses), service.unit, environment]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


def outputs(service: Service, tree: str, inherited: Mapping[str, bytes | None], uses: Sequence[str] = ()) -> str:
    """The key of a service's build outputs: equal keys need no build (E3).

    Over the source tree, what it `uses`, the command, its environment and user, and the inherited files.
    """
    build = service.build
    assert build is not None
    files = [(path, None if raw is None else hashlib.sha256(raw).hexdigest()) for path, raw in sorted(inherited.items())]
    said = [tree, list(uses), build.run, sorted(build.env.items()), build.outputs, build.git, service.user, service.path,
            files]  # fmt: skip
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]
