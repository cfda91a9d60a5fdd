"""P7: hostile text in every field of every route, and in every key of every delivery of a forge, starts no program with it
and is never carried out; bodies that are bombs cost no more than their cap."""

from __future__ import annotations

import copy
import gzip
import itertools
import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from homeport.daemon.access import Patience
from homeport.flow.site import Site
from tests.daemon.conftest import App, problem
from tests.daemon.test_hooks import RECORDED, deliver, headers_of

HOSTILE = ("$(touch X)", "`touch X`", "; touch X", "--upload-pack=touch X", "-oProxyCommand=touch X", "--output=X",
           "main\ntouch X", "../X", "{0.__class__}", "%(touch X)s", "\x1b]0;X\x07")  # fmt: skip
Started = list[list[str]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Started:
    """The command line of each program that is started from now on."""
    found: Started = []
    real = subprocess.Popen.__init__

    def begin(self: Any, argv: Any, *args: Any, **more: Any) -> None:
        found.append([argv] if isinstance(argv, str) else [str(word) for word in argv])
        assert not more.get("shell")
        real(self, argv, *args, **more)

    monkeypatch.setattr(subprocess.Popen, "__init__", begin)
    monkeypatch.chdir(tmp_path)
    return found


def harmless(started: Started, text: str) -> bool:
    """No word of a command line is the text where a program could take it for an option, or a shell for a command."""
    for argv in started:
        for number, word in enumerate(argv):
            shell = argv[:2] == ["/bin/sh", "-c"] and number == 2
            if text in word and (shell or (word.startswith("-") and "--" not in argv[:number])):
                return False
    return True


@pytest.fixture(scope="module")
def still(site: Site) -> Iterator[App]:
    made = App(replace(site, start_runner=lambda: 0, runner_on_its_way=lambda: True))
    yield made
    made.close()


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        found: dict[str, Any] = document
        for key in schema["$ref"].removeprefix("#/").split("/"):
            found = found[key]
        return found
    return schema


def asked(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any], dict[str, str], list[str]]]:
    """(method, path, body, query, what is hostile) for each parameter and each property of each route; `X` is the text."""
    for path, methods in document["paths"].items():
        for method, about in methods.items():
            if "operationId" not in about:
                continue
            inside = [p["name"] for p in about.get("parameters", []) if p["in"] == "path"]
            plain = path
            for name in inside:
                yield method, path.replace("{" + name + "}", "X"), {}, {}, [name]
                plain = plain.replace("{" + name + "}", "none")
            for one in about.get("parameters", []):
                if one["in"] == "query":
                    yield method, plain, {}, {one["name"]: "X"}, [one["name"]]
            content = about.get("requestBody", {}).get("content", {}).get("application/json")
            if content:
                shape = resolved(document, content["schema"])
                for name in shape["properties"]:
                    for value in ("X", ["X"], {"name": "X", "email": "X"}):
                        yield method, plain, {"because": "a reason", name: value}, {}, [name]


def test_what_would_be_carried_out_is_told() -> None:
    text = HOSTILE[3]
    assert harmless([["git", "fetch", "--", text], ["git", "log", f"ref:{text}"]], text)
    assert not harmless([["git", "fetch", text]], text) and not harmless([["/bin/sh", "-c", f"git log {text}"]], text)


def test_no_field_of_any_route_reaches_a_command_line(still: App, started: Started, tmp_path: Path) -> None:
    document = still.own("GET", "/api/v1/schema").json()
    cases = list(asked(document))
    assert len(cases) > 60 and {path for _, path, *_ in cases} >= {"/api/v1/plan", "/api/v1/self/deploy", "/api/v1/adopt"}
    for number, (method, path, body, query, named) in enumerate(cases):
        for text in (HOSTILE[number % len(HOSTILE)], HOSTILE[(number + 3) % len(HOSTILE)]):
            filled = json.loads(json.dumps(body).replace('"X"', json.dumps(text)))
            params = dict.fromkeys(query, text)
            if (method == "post" and path.endswith("deploy")) or path.endswith("deploys"):
                params["wait"] = params.get("wait", "false")
            answer = still.own(method.upper(), path.replace("X", text.replace("/", "%2f").replace("\n", "%0a")),
                               params=params or None, **({"json": filled} if body else {}))  # fmt: skip
            assert answer.status_code < 500, (method, path, named, text, answer.text)
            assert "Traceback" not in answer.text and "\x1b" not in answer.text
            assert harmless(started, text), (path, named, [argv for argv in started if text in " ".join(argv)])
    assert not list(tmp_path.iterdir()) and not list(Path(still.site.state).rglob("X*"))
    waiting = still.site.store.waiting()
    assert waiting is None or waiting.request.ref not in HOSTILE
    still.own("POST", "/api/v1/unhold")


EVENTS = ("push", "workflow_run", "check_suite", "check_run", "status", "pull_request", "workflow_job", "delete", "create",
          "repository")  # fmt: skip


def keys(value: Any) -> Iterator[str]:
    """Every key below that holds a text."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, str):
                yield key
            yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)


def hostile(value: Any, key: str, text: str) -> Any:
    if isinstance(value, dict):
        return {k: text if k == key and isinstance(v, str) else hostile(v, key, text) for k, v in value.items()}
    return [hostile(inner, key, text) for inner in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def forged(site: Site) -> Iterator[App]:
    made = App(replace(site, start_runner=lambda: 0, runner_on_its_way=lambda: True), ("github", "gitea", "gitlab"))
    yield made
    made.close()


def test_no_text_of_a_delivery_starts_anything(forged: App, started: Started, tmp_path: Path) -> None:
    """Each key of each kind of event that homeport reads, and of some it does not; the repository is ours, so that it is
    read to its end."""
    texts, tried = itertools.cycle(HOSTILE), 0
    for event in EVENTS:
        recorded = next((one["payload"] for one in RECORDED if one["event"] == event), None)
        assert recorded is not None, event
        payload = copy.deepcopy(recorded)
        payload.setdefault("repository", {})["full_name"] = "octo/shop"
        for key in sorted(set(keys(payload))):
            text = next(texts)
            forged.app.state.patience = Patience()
            answer = deliver(forged, hostile(payload, key, text), event)
            assert answer.status_code in (202, 400), (event, key, text, answer.text)
            assert text not in answer.text or text.isprintable()
            tried += 1
    forged.pushed()
    assert tried > 200, tried
    assert started == [] and not list(tmp_path.iterdir())


def test_a_deep_a_packed_and_an_endless_delivery_cost_no_more_than_their_cap(forged: App) -> None:
    for deep in (b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000):
        answer = deliver(forged, deep)
        assert (answer.status_code, problem(answer)) == (400, "bad-delivery"), answer.text
    bomb = gzip.compress(b"0" * 100_000_000)
    packed = forged.ask("POST", "/hooks/github", content=bomb,
                        headers=[*headers_of("github", "push", bomb), ("Content-Encoding", "gzip")])  # fmt: skip
    assert (packed.status_code, problem(packed)) == (415, "encoding")
    given = 0

    async def endless() -> Any:
        nonlocal given
        for _ in range(1024):
            given += 1 << 20
            yield b"x" * (1 << 20)

    long = forged.ask("POST", "/hooks/github", content=endless(), headers=headers_of("github", "push", b""))
    assert (long.status_code, problem(long)) == (413, "too-large") and given < 64 << 20, given
    assert forged.own("GET", "/healthz").status_code == 200
