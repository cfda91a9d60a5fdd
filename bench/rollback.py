"""Back to the outputs of an earlier deploy and forward again, against a deploy that builds, and a copy with rsync."""

from __future__ import annotations

from _measure import World, asked, heading, in_turns, run, table, world

BUILD = """
  [services.site.build]
  run = ["cp", "-r", "part0", "dist"]
  outputs = ["dist"]
"""


def main() -> None:
    options = asked("rollback of a built application", (500,), (10_000,))
    heading("homeport rollback of a built application: no build, the kept outputs are exchanged")
    for count in options.sizes:
        with world() as here:
            here.configure(BUILD)
            here.files(count)
            here.push()
            here.homeport("deploy")
            here.change_one()
            here.push()
            here.homeport("deploy")
            steps = {
                "homeport rollback": lambda h=here: back(h),
                "rsync -a --delete of sources and outputs": lambda h=here: copied(h),
            }
            before = {"homeport rollback": lambda h=here: forward(h)}
            table(f"{count:,} files", in_turns(steps, options.times, before), "homeport rollback")


def back(here: World) -> None:
    here.homeport("rollback")


def forward(here: World) -> None:
    """The newer commit again, with the outputs that were kept; the first time it is there already."""
    here.homeport("unblock", here.git("rev-parse", "HEAD").strip(), ok=(0, 2, 3, 4))
    here.homeport("deploy")


def copied(here: World) -> None:
    here.change_one()
    run("rsync", "-a", "--delete", f"{here.clone}/site/", f"{here.root}/copy/")


if __name__ == "__main__":
    main()
