"""From a push to a verified deploy: what homeport adds to the project's own commands, by webhook, by the timer's tick and
by hand, beside a script that does the same without looking, keeping or undoing anything."""

from __future__ import annotations

import hashlib
import hmac
import json
import statistics
import subprocess
import time
from collections.abc import Callable

import httpx
from _measure import World, asked, heading, row, run, world

from daemon import daemon

SECRET = "not told to anybody"
CONFIG = """
[project]
name = "site"

[environments.production]
branch = "main"

[forge]
kind = "github"
repo = "octo/shop"
webhook_secret = [{{ env = "HOOK_SECRET" }}]

[migrate]
run = ["sh", "migrate.sh"]

[services.site]
source = "site"
target = "{live}/site"
runtime = "command"
command = ["sh", "restart.sh"]
build = {{ run = ["sh", "build.sh"], outputs = ["dist"] }}
checks = [{{ command = ["sh", "check.sh"], every = "10ms" }}]
"""
OWN = {
    "build.sh": "rm -rf dist; mkdir dist; sleep 0.3; cat part0/0/page7.txt > dist/page.txt\n",
    "migrate.sh": "sleep 0.1\n",
    "restart.sh": "sleep 0.1\n",
    "check.sh": "sleep 0.05; test -s dist/page.txt\n",
}
"""The project's own commands: what they take is not homeport's."""


def main() -> None:
    options = asked("push to verified", sizes=(500,), full=(10_000,))
    heading("from the push to the verified deploy, above the project's own commands (build, migration, restart, check)")
    for count in options.sizes:
        with world() as here:
            _prepare(here, count)
            own = _median([_own(here) for _ in range(options.times)])
            script = _median([_script(here) for _ in range(options.times)])
            case = f"{count:,} files"
            print(f"\n{count:,} files: the project's own commands {own * 1000:,.0f} ms")
            print(f"  a script: fetch, reset, the same commands {script * 1000:,.0f} ms")
            here.homeport("deploy")
            for name, how in (("homeport deploy", _by_hand), ("homeport converge", _by_tick)):
                _row(case, name, _median([_deployed(here, how) for _ in range(options.times)]), own, script)
            with daemon(here) as (_, place), httpx.Client(transport=httpx.HTTPTransport(uds=str(place)), timeout=60) as ask:
                told = [_deployed(here, lambda here: _by_webhook(here, ask)) for _ in range(options.times)]
            _row(case, "a webhook to the daemon", _median(told), own, script)


def _median(seconds: list[float]) -> float:
    return statistics.median(seconds)


def _row(case: str, name: str, seconds: float, own: float, script: float) -> None:
    above, whole = f"{(seconds - own) * 1000:,.0f} ms above the commands", f"{seconds * 1000:,.0f} ms"
    print(f"  {name:<30} {whole:>10}, {above}; {seconds / script:.2f} x the script", flush=True)
    row(case, f"{seconds / script:.2f} x a script that fetches, resets and runs the same", f"{name}: {above}",
        f"{(script - own) * 1000:,.0f} ms above")  # fmt: skip


def _prepare(here: World, count: int) -> None:
    here.env["HOOK_SECRET"] = SECRET
    (here.clone / "homeport.toml").write_text(CONFIG.format(live=here.live))
    (here.clone / ".gitignore").write_text("dist/\n")
    here.files(count)
    for name, text in OWN.items():
        (here.clone / "site" / name).write_text(text)
    here.push()
    run("git", "clone", "-q", str(here.origin), str(here.root / "script"), env=here.env)


def _commands(folder: str) -> None:
    for name in OWN:
        subprocess.run(["sh", name], cwd=folder, check=True)


def _own(here: World) -> float:
    began = time.perf_counter()
    _commands(str(here.root / "script/site"))
    return time.perf_counter() - began


def _script(here: World) -> float:
    here.change_one()
    here.push()
    began = time.perf_counter()
    run("git", "fetch", "-q", "origin", cwd=here.root / "script", env=here.env)
    run("git", "reset", "-q", "--hard", "origin/main", cwd=here.root / "script", env=here.env)
    _commands(str(here.root / "script/site"))
    return time.perf_counter() - began


def _deployed(here: World, how: Callable[[World], None]) -> float:
    here.change_one()
    here.push()
    began = time.perf_counter()
    how(here)
    return time.perf_counter() - began


def _by_hand(here: World) -> None:
    here.homeport("deploy")


def _by_tick(here: World) -> None:
    here.homeport("converge")


def _by_webhook(here: World, ask: httpx.Client) -> None:
    sha = here.git("rev-parse", "HEAD").strip()
    body = json.dumps({"ref": "refs/heads/main", "before": "a" * 40, "after": sha, "deleted": False,
                       "repository": {"full_name": "octo/shop"}}).encode()  # fmt: skip
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-GitHub-Event": "push", "X-GitHub-Delivery": sha, "X-Hub-Signature-256": f"sha256={digest}",
               "Content-Type": "application/json"}  # fmt: skip
    ask.post("http://localhost/hooks/github", content=body, headers=headers).raise_for_status()
    while True:
        rows = ask.get("http://localhost/api/v1/deploys").json()["deploys"]
        if any(row["sha"] == sha and row["state"] == "done" for row in rows):
            return
        time.sleep(0.01)


if __name__ == "__main__":
    main()
