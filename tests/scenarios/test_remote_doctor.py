"""A12: `homeport doctor` from a laptop: the laptop, the connection, each machine, and who else deploys there."""

from __future__ import annotations

from typing import Any

from tests.fleet import Fleet


def rows(fleet: Fleet, code: int) -> dict[str, dict[str, Any]]:
    said = fleet.homeport("--json", "-e", "production", "doctor", ok=(code,)).last
    return {row["name"]: row for row in said["checks"]}


def test_each_machine_is_checked_and_other_deployers_are_found(fleet: Fleet) -> None:
    fleet.homeport("-e", "production", "deploy")
    well = rows(fleet, 0)
    assert well["ssh"]["ok"] and well["prod-1: claim of site"]["detail"] == "claimed"
    assert well["prod-1: other deployers"]["detail"] == "none found"
    workflow = "jobs:\n  deploy:\n    steps:\n      - run: rsync -a site/ prod.example.com:/srv/site/\n"
    fleet.laptop.publish({".github/workflows/deploy.yml": workflow})
    (fleet.prod.state / "shop/production").chmod(0o755)
    (fleet.prod.live / "site/.homeport").write_text(
        '{"project": "other", "environment": "production", "service": "x", "state": "/var/lib/other"}'
    )
    ill = rows(fleet, 1)
    other = ill["prod-1: other deployer"]
    assert not other["ok"] and ".github/workflows/deploy.yml:4: - run: rsync" in other["detail"]
    assert not ill["prod-1: state folder"]["ok"] and "other" in ill["prod-1: claim of site"]["detail"]
    shown = fleet.homeport("-e", "production", "doctor", ok=(1,)).stdout
    assert "✗ prod-1: other deployer" in shown and "setup --observe" in shown
    fleet.prod.identify("prod-1", "observe = true\n")
    fleet.prod.host_file.write_text(fleet.prod.host_file.read_text().replace(str(fleet.prod.live), "/nowhere"))
    narrow = rows(fleet, 1)
    assert narrow["prod-1: other deployer"]["ok"]
    assert f"roots: {fleet.prod.live}" in narrow["prod-1: host file"]["detail"]
    assert narrow["prod-1: host file"]["next"] == "homeport -e production setup --widen   (adds these)"
    fleet.homeport("-e", "production", "setup", "--widen", ok=(1,))
    mended = rows(fleet, 1)
    assert mended["prod-1: host file"]["ok"] and mended["prod-1: state folder"]["ok"], "setup mends what doctor finds"


def test_a_machine_that_cannot_be_reached_is_a_line_with_its_remedy(fleet: Fleet) -> None:
    fleet.prod.authorized.write_text("")
    row = rows(fleet, 1)["prod-1"]
    assert not row["ok"] and row["next"] == "ssh prod.example.com true"
