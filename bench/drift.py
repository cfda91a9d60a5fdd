"""Drift of one live folder with nothing edited, whole command, against what else tells the same."""

from __future__ import annotations

from _measure import HOMEPORT, asked, heading, in_turns, run, table, world


def main() -> None:
    options = asked("drift of one live folder")
    heading("homeport drift, nothing edited, warm")
    for count in options.sizes:
        with world() as here:
            here.configure()
            here.files(count)
            here.push()
            here.homeport("deploy")
            source, live = f"{here.clone}/site", f"{here.live}/site"
            steps = {
                "homeport drift": lambda h=here: run(HOMEPORT, "drift", cwd=h.clone, env=h.env),
                "git status -uall": lambda h=here: h.git("status", "-uall", "--porcelain"),
                "diff -rq": lambda s=source, t=live: run("diff", "-rq", s, t, ok=(0, 1)),
                "rsync -rcn --delete": lambda s=source, t=live: run("rsync", "-rcn", "--delete", "-i", f"{s}/", f"{t}/"),
            }
            table(f"{count:,} files", in_turns(steps, options.times), "homeport drift")


if __name__ == "__main__":
    main()
