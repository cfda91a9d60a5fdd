"""D18: a command and a shell on the remote host from a laptop, over a real sshd, with the words that were said."""

from __future__ import annotations

import pexpect

from tests.fleet import Fleet
from tests.world import PROGRAM

ODD = "it's \"odd\"; $(touch /tmp/no) `x` \\ back --json *"


def test_a_command_runs_on_the_host_with_its_words_as_they_are_and_its_status_is_ours(fleet: Fleet) -> None:
    fleet.homeport("-e", "production", "deploy")
    script = 'printf "%s|" "$@"; pwd; echo "$HOMEPORT_ENVIRONMENT"; exit 7'
    ran = fleet.homeport("-e", "production", "run", "-s", "site", "--", "sh", "-c", script, "sh", ODD, "", ok=(7,))
    assert ran.stdout == f"{ODD}||{fleet.prod.live}/site\nproduction\n"
    assert fleet.homeport("-e", "production", "run", "-s", "nothing", "--", "true", ok=(2,)).code == 2
    agent = {"HOMEPORT_ACTOR": "agent"}
    refused = fleet.homeport("-e", "production", "run", "-s", "site", "--", "true", ok=(2,), env=agent)
    assert "for a person" in refused.stderr


def test_a_shell_there_is_a_terminal_here(fleet: Fleet) -> None:
    fleet.homeport("-e", "production", "deploy")
    argv = ["-C", str(fleet.laptop.clone), "-e", "production", "shell", "site"]
    with pexpect.spawn(str(PROGRAM), argv, env=fleet.laptop.env, encoding="utf-8", timeout=20) as terminal:  # type: ignore[arg-type]
        terminal.expect("[#$] ")
        terminal.sendline("[ -t 0 ] && echo it is a $((40 + 2)) terminal in $PWD; exit 5")
        terminal.expect(f"it is a 42 terminal in {fleet.prod.live}/site")
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == 5
