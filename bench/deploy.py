"""One changed file: fetch, plan, sync and stamp, no build and no runtime, against a bare copy of the folder."""

from __future__ import annotations

from _measure import World, asked, heading, in_turns, run, table, world


def main() -> None:
    options = asked("deploy of one changed file")
    heading("homeport deploy of one changed file (durable, with fetch and two looks at the live folder)")
    for count in options.sizes:
        with world() as here:
            here.configure()
            here.files(count)
            here.push()
            here.homeport("deploy")
            copy = here.root / "copy"
            run("rsync", "-a", "--delete", f"{here.clone}/site/", f"{copy}/")
            _measured(here, count, str(copy), options.times)


def _measured(here: World, count: int, copy: str, times: int) -> None:
    def commit() -> None:
        here.change_one()
        here.push()

    steps = {
        "homeport deploy": lambda: run_deploy(here),
        "rsync -a --delete": lambda: rsync(here, "-a", copy),
        "rsync -ac --delete (compares contents)": lambda: rsync(here, "-ac", copy),
    }
    before = {"homeport deploy": commit, "rsync -a --delete": here.change_one,
              "rsync -ac --delete (compares contents)": here.change_one}  # fmt: skip
    table(f"{count:,} files", in_turns(steps, times, before), "homeport deploy")


def run_deploy(here: World) -> None:
    here.homeport("deploy")


def rsync(here: World, how: str, to: str) -> None:
    run("rsync", how, "--delete", f"{here.clone}/site/", f"{to}/")


if __name__ == "__main__":
    main()
