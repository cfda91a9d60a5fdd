"""What looks like another deployer, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from homeport.decide.deployers import in_ecosystem, in_schedule, in_workflow, scripts_in, scripts_of
from homeport.doors.schedules import scheduled

WORKFLOW = """\
jobs:
  deploy:
    steps:
      - uses: actions/checkout@v4
      # rsync -a ./ old:/opt
      - run: rsync -a --delete api/ deploy@web-1.example.com:/opt/api/
      - run: |
          ssh deploy@web-1.example.com \\
            "cd /opt/api && git pull && pm2 restart api"
      - uses: example/ssh-action@v1
      - run: ssh deploy@web-1.example.com homeport -p shop deploy
      - run: ssh-keyscan web-1.example.com >> ~/.ssh/known_hosts
      - run: npm run lint-rsync-config
"""


def test_a_workflow_that_copies_or_calls_is_named_with_its_line() -> None:
    found = in_workflow(".github/workflows/deploy.yml", WORKFLOW)
    assert [one.where.rpartition(":")[2] for one in found] == ["6", "8", "10"]
    assert found[1].line == 'ssh deploy@web-1.example.com "cd /opt/api && git pull && pm2 restart api"'


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("*/5 * * * * root cd /opt/api && git pull -q", True),
        ("0 4 * * * git -C /opt/api fetch && git -C /opt/api reset --hard origin/main", True),
        ("ExecStart=/usr/bin/rsync -a backup:/srv/www/ /srv/www/", True),
        ("* * * * * docker compose -f /srv/compose.yaml pull", True),
        ("# */5 * * * * git pull", False),
        ("0 3 * * * /usr/bin/certbot renew", False),
        ("*/5 * * * * homeport -p shop converge", False),
    ],
)
def test_a_line_of_a_schedule(line: str, found: bool) -> None:
    assert bool(in_schedule("crontab", line)) is found


def test_pm2_deploys_only_by_its_deploy_section() -> None:
    apps = "module.exports = {\n  apps: [{ name: 'api', deployed: { x: 1 } }],\n"
    assert in_ecosystem("ecosystem.config.js", apps + "}") == []
    (one,) = in_ecosystem("ecosystem.config.js", apps + "  deploy: {\n    production: {} } }")
    assert one.where == "ecosystem.config.js:3"


def test_tables_timers_and_the_scripts_they_name_are_read(tmp_path: Path) -> None:
    for name, text in (
        ("etc/crontab", "* * * * * root /usr/local/bin/pull.sh >> /var/log/x\n"), ("etc/cron.d/big", "x" * 100_000),
        ("etc/systemd/system/pull.timer", "[Timer]\n"), ("etc/systemd/system/pull.service", "ExecStart=/opt/pull\n"),
        ("etc/systemd/system/other.service", "ExecStart=/opt/other\n"),
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "etc/cron.d/unreadable").symlink_to("/nonexistent")
    found = dict(scheduled(str(tmp_path)))
    assert [path.removeprefix(str(tmp_path)) for path in found] == ["/etc/crontab", "/etc/systemd/system/pull.service"]
    assert scripts_in(next(iter(found.values()))) == ["/usr/local/bin/pull.sh", "/var/log/x"]


def test_the_scripts_that_a_workflow_runs_are_named() -> None:
    text = "- run: sh ops/deploy.sh /srv\n- run: ./ship.bash && bash -eu a/b/c.sh\n# sh not/this.sh\n- run: x.shop /up.sh\n"
    assert scripts_of(text) == ["ops/deploy.sh", "ship.bash", "a/b/c.sh"]
