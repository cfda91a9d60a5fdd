"""`homeport`, the program: the longest question of a look is on its way before the rest is loaded."""

from __future__ import annotations

import sys

from homeport.doors.early import EARLY


def main() -> None:
    """As `cli.main.main`."""
    EARLY.begin(sys.argv[1:])
    from homeport.cli.main import main as program

    program(EARLY.end)


if __name__ == "__main__":
    main()
