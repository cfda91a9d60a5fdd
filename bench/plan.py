"""Which of many services a large push concerns: decided alone, against asking git once per service; and `homeport plan`,
the whole command with its look at every live folder, against a `git diff` for each service as CI scripts do it.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from _measure import HOMEPORT, asked, heading, in_turns, run, table, world

from homeport.decide import impact
from homeport.model.config import Config, Environment, Project, Service
from homeport.model.live import Stat

SAMPLE = 10
"""Services that the peer is asked for; its time is shown for all of them."""
WHOLE = (10, 100)
"""Services, each with a live folder, that the whole command is asked about."""
FILES = 20
"""In each of their folders."""


def main() -> None:
    options = asked("services a push concerns", (10_000, 100_000), ())
    heading("1,000 services, every path changed: the decision alone (the peer: git ls-files with one pathspec each)")
    for count in options.sizes:
        paths = [f"services/s{n % 1000}/part{n // 50_000}/file{n}.txt" for n in range(count)]
        names = [f"s{n}" for n in range(1000)]
        services = {name: Service(source=f"services/{name}", ignore=["*.md"]) for name in names}
        config = Config(project=Project(name="many"), environments={"production": Environment(branch="main")},
                        services=services)  # fmt: skip
        changed = [Stat(path, 1, 1) for path in paths]
        with tempfile.TemporaryDirectory(prefix="homeport-bench-") as folder:
            indexed(Path(folder), paths)
            steps = {
                "homeport": lambda c=config, n=names, s=changed: decided(c, n, s),
                "git, a pathspec per service": lambda f=folder, n=names: per_service(f, n[:SAMPLE]),
            }
            took = in_turns(steps, options.times)
        took["git, a pathspec per service"] *= len(names) / SAMPLE
        table(f"{count:,} paths", took, "homeport")
    heading("homeport plan and homeport status, the whole commands (the peer: git diff for each service)")
    for count in WHOLE:
        whole(count, options.times)


def whole(count: int, times: int) -> None:
    names = [f"s{n}" for n in range(count)]
    with world() as here:
        services = "".join(f'\n[services.{name}]\nsource = "services/{name}"\ntarget = "{here.live}/{name}"\n'
                           for name in names)  # fmt: skip
        project = '[project]\nname = "many"\n\n[environments.production]\nbranch = "main"\n'
        (here.clone / "homeport.toml").write_text(project + services)
        for version in (1, 2):
            for name in names:
                folder = here.clone / "services" / name
                folder.mkdir(parents=True, exist_ok=True)
                for number in range(FILES):
                    (folder / f"file{number}.txt").write_text(f"{name} {number} {version}\n")
            here.push()
            if version == 1:
                here.homeport("deploy")

        def verb(word: str) -> None:
            run(HOMEPORT, word, cwd=here.clone, env=here.env)

        def diffs() -> None:
            run("git", "fetch", "-q", cwd=here.clone, env=here.env)
            for name in names:
                asked = ("git", "diff", "--quiet", "HEAD~1", "HEAD", "--", f"services/{name}")
                run(*asked, cwd=here.clone, env=here.env, ok=(1,))

        steps = {"homeport plan": lambda: verb("plan"), "git fetch, git diff --quiet for each service": diffs}
        table(f"{count} services, {count * FILES:,} changed paths", in_turns(steps, times), "homeport plan")
        steps = {"homeport status": lambda: verb("status"), "homeport --version": lambda: verb("--version")}
        table(f"{count} services, {count * FILES:,} files", in_turns(steps, times), "homeport status")


def decided(config: Config, names: list[str], changed: list[Stat]) -> None:
    found = impact.impacts(config, names, dict.fromkeys(names, changed))
    if not all(one.affected for one in found.values()):
        raise SystemExit("a concerned service was not found")


def indexed(folder: Path, paths: list[str]) -> None:
    run("git", "init", "-q", str(folder))
    blob = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    lines = "".join(f"100644 {blob}\t{path}\n" for path in paths)
    subprocess.run(["git", "update-index", "--index-info"], cwd=folder, input=lines, text=True, check=True)


def per_service(folder: str, names: list[str]) -> None:
    for name in names:
        run("git", "ls-files", "--", f"services/{name}", cwd=folder)


if __name__ == "__main__":
    main()
