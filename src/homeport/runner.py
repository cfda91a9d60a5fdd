"""Process entry of the runner: `python -m homeport.runner STATE_ROOT PROJECT ENVIRONMENT [--wait | send | check]`."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeport.flow.site import Site


def main(argv: list[str], opened: Sequence[Site] = ()) -> int:
    """Empties the queue of one environment. SIGTERM and SIGINT ask the running deploy to cancel.

    With `--wait` it loads everything first, and begins when its input ends. `opened`: the site, where it is open already.
    """
    gc.set_threshold(50_000)
    from homeport.flow.runner import drain
    from homeport.model.errors import HomeportError
    from homeport.wiring import read_host, site_from_state

    os.chdir("/")
    root, project, environment, *rest = argv
    if rest in (["send"], ["check"]):
        return apart(rest[0], root, project, environment)
    if rest:
        from homeport.wiring_ahead import load_ahead

        load_ahead()
        os.read(0, 1)
    try:
        done, ready = False, list(opened)
        while not done:
            with ready.pop() if ready else site_from_state(root, project, environment) as site:
                _mind_signals(site)
                done = drain(site, lambda: read_host() == site.host_config)  # called within this turn
    except HomeportError as fault:
        sys.stderr.write(f"{fault} next: {fault.next}\n")
        return fault.exit_code
    return 0


def _mind_signals(site: Site) -> None:
    """SIGTERM and SIGINT ask the running deploy to cancel; a terminal that goes away is nothing to it."""

    def cancel(number: int, _frame: object) -> None:
        running = site.store.running()
        if running is not None and running.pid == os.getpid():
            site.store.ask_cancel(running.id, f"signal {number}")

    signal.signal(signal.SIGTERM, cancel)
    signal.signal(signal.SIGINT, cancel)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def apart(what: str, root: str, project: str, environment: str) -> int:
    """Empties the outbox, after the checks that were asked for with `check`; no deploy waits for it."""
    from homeport.flow.notifying import deliver
    from homeport.model.errors import HomeportError
    from homeport.wiring import site_from_state

    try:
        with site_from_state(root, project, environment) as site:
            if what == "check":
                from homeport.flow.checking import carry_out

                carry_out(site)
            deliver(site)
    except HomeportError as fault:
        sys.stderr.write(f"{fault} next: {fault.next}\n")
        return fault.exit_code
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # all is written and told: nobody waits until the interpreter has been taken apart
    sys.stderr.flush()
    os._exit(code)
