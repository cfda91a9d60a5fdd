"""Every verb from a laptop, on the machine that the environment names: the same words, the same exit codes."""

from __future__ import annotations

import json

from tests.remote.conftest import Fleet


def test_a_deploy_from_the_laptop_lands_on_the_host_that_is_meant(fleet: Fleet) -> None:
    sha = fleet.laptop.git("rev-parse", "HEAD")
    ran = fleet.homeport("-e", "production", "deploy")
    assert f"deployed {sha[:7]}" in ran.stdout
    assert fleet.prod.text("site/a.txt") == "one\n"
    assert not (fleet.stage.live / "site").exists()
    row = json.loads(fleet.prod.homeport("--json", "history").stdout)["deploys"][0]
    assert "@" in row["requestedBy"]
    assert not fleet.laptop.state.exists(), "nothing is kept on the laptop"
