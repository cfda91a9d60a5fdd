"""`homeport deploy --built`: outputs that a laptop or a CI machine made of the very commit, in place of a build here.

They take the place of the build and nothing else: kept under the same key, exchanged in, verified, rolled back and
recorded as if they had been built here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from homeport.decide import layout, together
from homeport.flow.site import Site
from homeport.model.bringing import BroughtOutputs, BuiltElsewhere, Wanted
from homeport.model.config import IMAGES, Config
from homeport.model.deploys import Request
from homeport.model.errors import InfrastructureFault, Refused, UsageFault
from homeport.model.paths import within


def with_built(site: Site, source: BuiltElsewhere, box: BroughtOutputs, request: Request,
               services: Sequence[str]) -> Request:  # fmt: skip
    """The request for the commit that the outputs of these services were built from, with the outputs in the mirror.

    Without a ref it is the commit that is checked out where they were built. Raises Refused (`unreachable`,
    `not-brought`, and those of `BuiltElsewhere.take`), UsageFault (code `no-service`).
    """
    site.git.fetch()
    sha = site.git.resolve(request.ref) if request.ref is not None else source.head()
    if not site.git.has(sha) or not site.git.reaches(site.env.branch, sha):
        raise Refused(f"commit {sha[:12]} is not on branch {site.env.branch}", where=f"environment {site.environment}",
                      next=f"git push origin HEAD:{site.env.branch}, then deploy again", code="unreachable")  # fmt: skip
    raw = site.git.file_at(sha, "homeport.toml")
    config = site.load_config(raw, f"{sha[:12]}:homeport.toml") if raw is not None else site.config
    wanted = {name: _wanted(config, site.environment, name) for name in dict.fromkeys(services)}
    commit = source.take(sha, wanted)
    rows = (site.store.running(), site.store.waiting())
    needed = [row.request.built for row in rows if row is not None and row.request.built is not None]
    _refuse_more(box.keep(source, commit, needed), wanted)
    return replace(request, ref=sha, built=commit)


def _wanted(config: Config, environment: str, name: str) -> Wanted:
    service = layout.services_of(config, environment).get(name)
    if service is None:
        raise UsageFault(f"no service named {name} in {environment}", where="--built", next="homeport status",
                         code="no-service")  # fmt: skip
    build, why = service.build, ""
    if service.runtime in IMAGES:
        why = f"runtime {service.runtime} builds images, which a registry brings"
    elif build is None or not build.outputs:
        why = "it has no build with outputs"
    elif build.where == "live":
        why = 'it is built in the live folder (build.where = "live")'
    elif build.inherit:
        why = f"its build takes files of the host (build.inherit: {', '.join(build.inherit)})"
    elif together.scope_of(config, name) is not None:
        why = "it is built together with its scope"
    if why or build is None:
        raise Refused(f"{name} cannot be built elsewhere: {why}", where=f"homeport.toml: services.{name}.build",
                      next="homeport deploy, without --built for it", code="not-brought")  # fmt: skip
    return Wanted(folder=layout.folder_of(service), outputs=tuple(output.rstrip("/") for output in build.outputs))


def _refuse_more(found: Mapping[str, frozenset[str]], wanted: dict[str, Wanted]) -> None:
    """Nothing came but the outputs that were asked for. Raises InfrastructureFault (code `no-answer`)."""
    for service, paths in found.items():
        outputs = wanted[service].outputs if service in wanted else ()
        more = [path for path in paths if not any(within(path, output) for output in outputs)]
        if more:
            raise InfrastructureFault(f"more came than the outputs of {service}: {more[0]}", where="over ssh",
                                      next="the same command again", code="no-answer")  # fmt: skip
