"""Webhook deliveries: only genuine ones, and whatever comes in, never an exception and never more than a hint.

Covers every recorded payload of GitHub, each also cut off, signed wrongly, as a form, twice and with a BOM.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from copy import deepcopy
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.decide.payloads import Finished, Ping, Push, Requested
from homeport.decide.webhooks import LONGEST, Delivery, Ignored, Malformed, kind_of, parse, usable, verify
from homeport.model.errors import ConfigFault
from homeport.model.forge import Kind

from .forges.schema import filled, stored

SECRET = b"It's a Secret to Everybody"
ZEROS = "0" * 40
OLD, NEW = "a" * 40, "b" * 40
RECORDED: list[dict[str, Any]] = stored("payloads/github-webhooks")
EVENTS = sorted({one["event"] for one in RECORDED})
USED = {"push", "status", "pull_request", "ping", "check_run", "check_suite", "workflow_run", "workflow_job"}


def signed(kind: Kind, event: str, body: bytes, secret: bytes = SECRET, **more: str) -> dict[str, str]:
    """The headers that this forge sends with that body."""
    digest = hmac.new(secret, body, hashlib.sha256).hexdigest()
    if kind == "gitlab":
        return {"X-Gitlab-Event": event, "X-Gitlab-Token": secret.decode(), "X-Gitlab-Event-UUID": "uuid-1", **more}
    headers = {"X-GitHub-Event": event, "X-GitHub-Delivery": "id-1", "X-Hub-Signature-256": f"sha256={digest}",
               "Content-Type": "application/json"}  # fmt: skip
    if kind == "gitea":
        headers |= {"X-Gitea-Event": event, "X-Gitea-Delivery": "id-2", "X-Gitea-Signature": digest,
                    "X-Gogs-Event": event}  # fmt: skip
    return {**headers, **more}


def bodied(payload: object) -> bytes:
    return json.dumps(payload).encode()


def read(kind: Kind, event: str, payload: object) -> Delivery | Ignored | Malformed:
    body = payload if isinstance(payload, bytes) else bodied(payload)
    return parse(kind, signed(kind, event, body), body)


def push(**changes: object) -> dict[str, Any]:
    document = {"ref": "refs/heads/main", "before": OLD, "after": NEW, "deleted": False,
                "repository": {"full_name": "octo/shop"}}  # fmt: skip
    return {**document, **changes}


def subject(kind: Kind, event: str, payload: object) -> object:
    found = read(kind, event, payload)
    assert isinstance(found, Delivery), found
    return found.subject


# Signatures


def test_githubs_own_example() -> None:
    headers = {
        "X-GitHub-Event": "push",
        "X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    }
    assert verify("github", headers, b"Hello, World!", [SECRET])
    assert not verify("github", headers, b"Hello, World?", [SECRET])


@pytest.mark.parametrize("kind", ["github", "gitea", "gitlab"])
def test_a_genuine_delivery_with_any_of_several_secrets(kind: Kind) -> None:
    body = bodied(push())
    headers = signed(kind, "push", body)
    assert verify(kind, headers, body, [SECRET])
    assert verify(kind, headers, body, [b"old", SECRET]) and verify(kind, headers, body, [SECRET, b"new"])
    assert verify(kind, {name.upper(): value for name, value in headers.items()}, body, [SECRET])
    assert verify(kind, list(headers.items()), body, [SECRET])
    assert not verify(kind, headers, body, [b"another"])


@pytest.mark.parametrize("kind", ["github", "gitea", "gitlab"])
@pytest.mark.parametrize("secrets", [[], [b""], [b"", SECRET]])
def test_without_a_secret_nothing_is_genuine(kind: Kind, secrets: list[bytes]) -> None:
    body = bodied(push())
    for secret in (b"", SECRET):
        assert not verify(kind, signed(kind, "push", body, secret), body, secrets)


@pytest.mark.parametrize("values", [[], [None], [""], [b""], ["  \n"], ["good", ""], ["good", None]])
def test_an_empty_secret_is_refused_at_the_start(values: list[str | bytes | None]) -> None:
    with pytest.raises(ConfigFault) as caught:
        usable(values)
    assert caught.value.code == "empty-secret" and "good" not in str(vars(caught.value))


def test_usable_secrets_are_taken_as_they_are() -> None:
    assert usable(["one", b"two"]) == [b"one", b"two"]


def test_giteas_empty_signature_is_refused() -> None:
    """Without a secret Gitea sends `sha256=` and nothing behind it."""
    body = bodied(push())
    headers = {"X-Gitea-Event": "push", "X-Gitea-Signature": "", "X-GitHub-Event": "push", "X-Hub-Signature-256": "sha256="}
    assert not verify("gitea", headers, body, [SECRET]) and not verify("github", headers, body, [SECRET])


def test_gitea_is_not_taken_for_github() -> None:
    body = bodied(push())
    headers = signed("gitea", "push", body)
    assert kind_of(headers) == "gitea"
    assert verify("gitea", headers, body, [SECRET])
    assert not verify("github", headers, body, [SECRET]), "although the signature that GitHub would send is right"
    assert kind_of(signed("github", "push", body)) == "github" and kind_of(signed("gitlab", "Push Hook", body)) == "gitlab"
    assert kind_of({"Host": "x"}) is None
    assert not verify("gitea", signed("github", "push", body), body, [SECRET])
    assert not verify("gitlab", signed("gitea", "push", body), body, [SECRET])


def test_forgejos_own_headers_are_known() -> None:
    body = bodied(push())
    headers = {name.replace("Gitea", "Forgejo"): value for name, value in signed("gitea", "push", body).items()}
    assert verify("gitea", headers, body, [SECRET])
    found = parse("gitea", headers, body)
    assert isinstance(found, Delivery) and found.id == "id-2"


@pytest.mark.parametrize(
    "signature",
    ["", "sha256=", "sha1=abc", "é" * 64, "\udcff", "sha256=" + "0" * 64, "SHA256={good}", "{good}", " sha256={good}",
     "sha256={good}0", "sha256={good},sha256={good}"],
)  # fmt: skip
def test_other_signatures_are_refused(signature: str) -> None:
    body = bodied(push())
    good = hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    headers = {"X-GitHub-Event": "push", "X-Hub-Signature-256": signature.replace("{good}", good)}
    assert not verify("github", headers, body, [SECRET])


def test_the_old_sha1_signature_alone_is_not_enough() -> None:
    body = bodied(push())
    digest = hmac.new(SECRET, body, hashlib.sha1).hexdigest()
    assert not verify("github", {"X-GitHub-Event": "push", "X-Hub-Signature": f"sha1={digest}"}, body, [SECRET])


def test_a_doubled_signature_is_none() -> None:
    body = bodied(push())
    pairs = [*signed("github", "push", body).items(), ("x-hub-signature-256", "sha256=" + "0" * 64)]
    assert not verify("github", pairs, body, [SECRET])
    assert not verify("github", list(reversed(pairs)), body, [SECRET])


@given(st.binary(max_size=200), st.dictionaries(st.text(max_size=20), st.text(max_size=80), max_size=6))
def test_no_bytes_and_no_headers_raise_or_pass(body: bytes, headers: dict[str, str]) -> None:
    for kind in ("github", "gitea", "gitlab"):
        event = {f"X-{kind}-Event": "push", "X-Gitlab-Token": "é", "X-Hub-Signature-256": "\u2028"}
        for given_headers in (headers, {**headers, **event}):
            assert not verify(kind, given_headers, body, [SECRET])  # type: ignore[arg-type]
            assert isinstance(parse(kind, given_headers, body), Delivery | Ignored | Malformed)  # type: ignore[arg-type]


# Every recorded payload of GitHub


@pytest.mark.parametrize("event", EVENTS)
def test_every_recorded_event_is_understood(event: str) -> None:
    for one in RECORDED:
        if one["event"] != event:
            continue
        body = bodied(one["payload"])
        headers = signed("github", event, body)
        assert verify("github", headers, body, [SECRET])
        found = parse("github", headers, body)
        assert isinstance(found, Delivery | Ignored), found
        assert found.event == event and found.id == "id-1"
        assert parse("github", headers, body) == found, "twice is the same, by the same id"
        assert isinstance(found, Ignored) or event in USED
        if isinstance(found, Delivery) and event != "ping":
            assert found.repository == one["payload"]["repository"]["full_name"]


@pytest.mark.parametrize("event", EVENTS)
def test_every_recorded_event_spoilt(event: str) -> None:
    for one in RECORDED:
        if one["event"] != event:
            continue
        body = bodied(one["payload"])
        headers = signed("github", event, body)
        whole = parse("github", headers, body)
        form = urlencode({"payload": body.decode()}).encode()
        formed = signed("github", event, form, **{"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"})
        assert verify("github", formed, form, [SECRET]) and parse("github", formed, form) == whole
        assert not verify("github", headers, form, [SECRET])
        assert isinstance(parse("github", headers, form), Malformed), "a form that says it is JSON"
        assert isinstance(parse("github", formed, body), Malformed), "JSON that says it is a form"
        for cut in (0, 1, len(body) // 3, len(body) - 1):
            assert not verify("github", headers, body[:cut], [SECRET])
            assert isinstance(parse("github", headers, body[:cut]), Malformed)
            assert isinstance(parse("github", formed, form[:cut]), Malformed)
        assert not verify("github", signed("github", event, body, b"wrong"), body, [SECRET])
        assert isinstance(parse("github", headers, b"\xef\xbb\xbf" + body), Malformed)
        assert isinstance(parse("github", headers, body + body), Malformed)


def test_recorded_pushes_say_what_moved() -> None:
    found = [subject("github", "push", one["payload"]) for one in RECORDED if one["event"] == "push"]
    assert all(isinstance(one, Push) for one in found)
    seen = {(one.branch, one.tag, one.before is None, one.deleted) for one in found if isinstance(one, Push)}
    assert seen == {(None, "simple-tag", True, False), (None, "simple-tag", False, True), ("master", None, True, False)}


def test_recorded_ends_of_checks_say_the_commit() -> None:
    counted: dict[str, int] = {}
    for one in RECORDED:
        found = read("github", one["event"], one["payload"])
        if isinstance(found, Delivery) and isinstance(found.subject, Finished):
            assert found.subject.sha in json.dumps(one["payload"])
            assert one["event"] == "status" or one["payload"]["action"] == "completed"
            counted[found.subject.what] = counted.get(found.subject.what, 0) + 1
    assert set(counted) == {"workflow", "job", "check", "status"}


# What a push can say


@pytest.mark.parametrize("kind", ["github", "gitea"])
def test_branches_and_tags_of_one_name_are_told_apart(kind: Kind) -> None:
    assert subject(kind, "push", push(ref="refs/heads/v1")) == Push(branch="v1", before=OLD, after=NEW)
    assert subject(kind, "push", push(ref="refs/tags/v1")) == Push(tag="v1", before=OLD, after=NEW)
    assert subject(kind, "push", push(ref="refs/heads/refs/tags/v1")) == Push(branch="refs/tags/v1", before=OLD, after=NEW)
    assert isinstance(read(kind, "push", push(ref="refs/notes/commits")), Ignored)
    assert isinstance(read(kind, "push", push(ref="main")), Ignored)


def test_forty_zeros_are_no_commit() -> None:
    assert subject("github", "push", push(before=ZEROS)) == Push(branch="main", before=None, after=NEW)
    gone = subject("github", "push", push(after=ZEROS, deleted=True))
    assert isinstance(gone, Push) and gone.deleted and gone.after is None
    assert subject("gitea", "push", push(after="0" * 64, before="a" * 64)) == Push(branch="main", before="a" * 64)
    assert isinstance(read("github", "push", push(before=ZEROS, after=ZEROS)), Malformed)
    assert isinstance(read("github", "push", push(deleted=True)), Malformed)
    assert isinstance(read("github", "status", {"state": "success", "sha": ZEROS}), Malformed)


NASTY = ["--upload-pack=x", "-", "-x", "a b", "$(touch x)", "`id`; rm -rf /", "a\x00b", "a\nb", "a\x1b[2J", "a\u2028b",
         "a\x85b", "..", "a..b", "a/../b", ".a", "a/.b", "a.lock", "a.lock/b", "a//b", "/a", "a/", "a.", "@", "a@{1}",
         "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "x" * 300, "\ud800", ""]  # fmt: skip


@pytest.mark.parametrize("name", NASTY)
def test_names_that_git_would_not_take_are_malformed(name: str) -> None:
    for kind in ("github", "gitea"):
        assert isinstance(read(kind, "push", push(ref=f"refs/heads/{name}")), Malformed)
        assert isinstance(read(kind, "push", push(ref=f"refs/tags/{name}")), Malformed)
    assert isinstance(read("gitea", "delete", {**push(ref=name), "ref_type": "branch"}), Malformed)
    hook = filled("gitlab", stored("schemas/gitlab")["wanted"]["push_hook"], {})
    pushed = {**hook, "ref": f"refs/heads/{name}", "before": OLD, "after": NEW}
    assert isinstance(read("gitlab", "Push Hook", pushed), Malformed)


@pytest.mark.parametrize(
    "name", ["$(touch${IFS}x)", "a;b", "a|b", "a&b", "a'b", 'a"b', "<b>", "été", "中文", "a-b", "%s{0}"]
)
def test_names_that_git_takes_are_only_ever_data(name: str) -> None:
    assert subject("github", "push", push(ref=f"refs/heads/{name}")) == Push(branch=name, before=OLD, after=NEW)


@pytest.mark.parametrize(
    "changes",
    [{"ref": None}, {"ref": 1}, {"ref": ["refs/heads/main"]}, {"before": None}, {"after": NEW[:7]}, {"after": NEW.upper()},
     {"after": NEW + "\n"}, {"after": 7}, {"repository": None}, {"repository": []}, {"repository": {"full_name": 1}},
     {"repository": {"full_name": "octo"}}, {"repository": {"full_name": "octo/shop\n"}},
     {"repository": {"full_name": "-x/shop"}}, {"repository": {"full_name": "../../etc"}}],
)  # fmt: skip
def test_wrong_types_are_malformed(changes: dict[str, Any]) -> None:
    assert isinstance(read("github", "push", push(**changes)), Malformed)


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"1", b'"x"', b"{", b"{} {}", b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b'{"a":1,"a":2}',
     b'{"x":{"ref":1,"ref":2}}', b'{"a":NaN}', b'{"a":Infinity}', b'{"a":"\xff"}', b"[" * 200_000, b'{"a":' * 200_000,
     b'{"a":' + b"9" * 5000 + b"}", json.dumps(push()).encode("utf-16"), b"\x00" * 100],
    ids=lambda body: repr(body[:12]),
)  # fmt: skip
def test_what_is_no_plain_json_object_is_malformed(body: bytes) -> None:
    for kind, event in (("github", "push"), ("gitea", "push"), ("gitlab", "Push Hook")):
        found = read(kind, event, body)  # type: ignore[arg-type]
        assert isinstance(found, Malformed) and found.why.isprintable()


def test_more_than_a_forge_sends_is_not_even_read() -> None:
    assert isinstance(read("github", "push", b" " * (LONGEST + 1)), Malformed)


@pytest.mark.parametrize("form", ["payload=%7B%7D&payload=%7B%7D", "payload=%7B%7D&x=1", "x=1", "payload", "payload=%FF",
                                  "&".join(f"a{n}=1" for n in range(100))])  # fmt: skip
def test_odd_forms_are_malformed(form: str) -> None:
    headers = {"X-GitHub-Event": "push", "Content-Type": "application/x-www-form-urlencoded"}
    assert isinstance(parse("github", headers, form.encode()), Malformed)


def test_what_two_readers_could_read_differently_is_not_read() -> None:
    body = bodied(push())
    assert isinstance(read("github", "push", body), Delivery)
    assert isinstance(read("github", "push", b'{"ref":"refs/heads/other",' + body[1:]), Malformed)
    headers = {"X-GitHub-Event": "push", "Content-Type": "application/x-www-form-urlencoded"}
    form = urlencode({"payload": body.decode()}).encode()
    assert isinstance(parse("github", headers, form), Delivery)
    for more in (form + b"&" + form, form + b"&x=1", b"x=1&" + form):
        assert isinstance(parse("github", headers, more), Malformed)


@pytest.mark.parametrize("event", ["", "x" * 100, "push\n", "\x1b[2J"])
def test_a_delivery_without_a_usable_event_is_malformed(event: str) -> None:
    assert isinstance(read("github", event, push()), Malformed)


def test_an_unusable_id_is_replaced_by_the_hash_of_the_body() -> None:
    body = bodied(push())
    for id in ("", "a b", "x" * 200, "é", "a\nb"):
        found = parse("github", signed("github", "push", body, **{"X-GitHub-Delivery": id}), body)
        assert isinstance(found, Delivery) and found.id == "sha256:" + hashlib.sha256(body).hexdigest()


def test_mutated_recordings_never_raise() -> None:
    """Every value of every used payload, one at a time, replaced by what does not belong there."""
    for event in sorted(USED):
        payload = next(one["payload"] for one in RECORDED if one["event"] == event)
        for key in payload:
            inner = [(key,)] + [(key, second) for second in (payload[key] if isinstance(payload[key], dict) else ())]
            for path in inner:
                for value in (None, 1, -1, True, 1e400, "", "\ud800", [], {}, [[]], {"ref": {}}):
                    document = deepcopy(payload) if len(path) > 1 else dict(payload)
                    (document[path[0]] if len(path) > 1 else document)[path[-1]] = value
                    body = json.dumps(document, allow_nan=True).encode()
                    assert isinstance(parse("github", {"X-GitHub-Event": event}, body), Delivery | Ignored | Malformed)


# Requests, and the other forges


def test_recorded_pull_requests() -> None:
    for one in RECORDED:
        if one["event"] == "pull_request":
            found = subject("github", "pull_request", one["payload"])
            held = one["payload"]["pull_request"]
            assert isinstance(found, Requested)
            assert (found.number, found.head_sha) == (held["number"], held["head"]["sha"])
            assert found.merged is bool(held.get("merged"))
            assert found.fork is (held["head"]["repo"]["id"] != held["base"]["repo"]["id"])


def test_a_request_from_a_vanished_fork_is_from_a_fork() -> None:
    payload = deepcopy(next(one["payload"] for one in RECORDED if one["event"] == "pull_request"))
    payload["pull_request"]["head"]["repo"] = None
    found = subject("github", "pull_request", payload)
    assert isinstance(found, Requested) and found.fork


def test_ping_of_a_repository_and_of_an_organisation() -> None:
    for one in RECORDED:
        if one["event"] == "ping":
            assert subject("github", "ping", one["payload"]) == Ping()


def hook(name: str, **given: Any) -> dict[str, Any]:
    project = {"path_with_namespace": "group/sub/shop", "id": 1}
    return filled("gitlab", stored("schemas/gitlab")["wanted"][name], {"project": project, **given})


def test_gitlab_pushes() -> None:
    found = read("gitlab", "Push Hook", hook("push_hook", ref="refs/heads/main", before=OLD, after=NEW))
    assert found == Delivery(id="uuid-1", event="Push Hook", repository="group/sub/shop",
                             subject=Push(branch="main", before=OLD, after=NEW))  # fmt: skip
    gone = subject("gitlab", "Push Hook", hook("push_hook", ref="refs/heads/x", before=OLD, after=ZEROS))
    assert gone == Push(branch="x", before=OLD)
    tag = subject("gitlab", "Tag Push Hook", hook("tag_push_hook", ref="refs/tags/v1", before=ZEROS, after=NEW))
    assert tag == Push(tag="v1", after=NEW)


@pytest.mark.parametrize(("status", "ended"), [("success", True), ("failed", True), ("canceled", True),
                                               ("skipped", True), ("running", False), ("manual", False)])  # fmt: skip
def test_gitlab_pipelines_and_jobs(status: str, ended: bool) -> None:
    pipeline = hook("pipeline_hook", object_attributes={"status": status, "sha": NEW, "name": "build"})
    job = hook("job_hook", build_status=status, sha=NEW, build_name="rspec")
    if ended:
        assert subject("gitlab", "Pipeline Hook", pipeline) == Finished(sha=NEW, what="workflow", name="build")
        assert subject("gitlab", "Job Hook", job) == Finished(sha=NEW, what="job", name="rspec")
    else:
        assert isinstance(read("gitlab", "Pipeline Hook", pipeline), Ignored)
        assert isinstance(read("gitlab", "Job Hook", job), Ignored)


def test_gitlab_merge_requests() -> None:
    about = {"iid": 7, "state": "merged", "action": "merge", "source_branch": "homeport/adopt-1", "target_branch": "main",
             "last_commit": {"id": NEW}, "source_project_id": 1, "target_project_id": 1}  # fmt: skip
    document = hook("merge_request_hook", object_attributes=about)
    expected = Requested(number=7, action="merge", head="homeport/adopt-1", head_sha=NEW, base="main", merged=True,
                         fork=False)  # fmt: skip
    assert subject("gitlab", "Merge Request Hook", document) == expected
    document["object_attributes"]["source_project_id"] = 2
    found = subject("gitlab", "Merge Request Hook", document)
    assert isinstance(found, Requested) and found.fork
    for number in (0, -1, True, 2**60, "7", None):
        document["object_attributes"]["iid"] = number
        assert isinstance(read("gitlab", "Merge Request Hook", document), Malformed)


def test_gitlab_sends_its_own_id_again_with_a_retry() -> None:
    body = bodied(hook("push_hook", ref="refs/heads/main", before=OLD, after=NEW))
    found = parse("gitlab", signed("gitlab", "Push Hook", body, **{"Idempotency-Key": "key-1"}), body)
    assert isinstance(found, Delivery) and found.id == "key-1"


def test_gitea_tells_of_deletions_in_an_event_of_their_own() -> None:
    document = {"ref": "feature/x", "ref_type": "branch", "repository": {"full_name": "octo/shop"}}
    assert subject("gitea", "delete", document) == Push(branch="feature/x")
    assert subject("gitea", "delete", {**document, "ref_type": "tag"}) == Push(tag="feature/x")
    assert isinstance(read("gitea", "delete", {**document, "ref_type": "x"}), Ignored)
    assert isinstance(read("github", "delete", document), Ignored), "GitHub sends a push as well"


@pytest.mark.parametrize(("kind", "event"), [("gitlab", "Note Hook"), ("gitlab", "System Hook"), ("gitea", "issues"),
                                             ("gitea", "fork"), ("github", "star")])  # fmt: skip
def test_everything_else_is_ignored(kind: Kind, event: str) -> None:
    found = read(kind, event, {"anything": "at all"})
    assert isinstance(found, Ignored) and found.event == event


def test_no_signature_secret_or_digest_is_compared_as_text_is() -> None:
    """`==` stops at the first byte that differs, which can be measured from afar: `compare_digest` is the one way."""
    import ast
    import re
    from pathlib import Path

    from homeport import daemon
    from homeport.decide import webhooks as rules
    from homeport.flow import tokens

    about, hits, ways = re.compile(r"signature|secret|digest|expected|\bsaid\b|\bheld\b|presented"), [], 0
    folder = Path(str(daemon.__file__)).parent
    for path in (Path(rules.__file__), Path(tokens.__file__), folder / "hooks.py", folder / "access.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            ways += isinstance(node, ast.Attribute) and node.attr == "compare_digest"
            if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq | ast.In) for op in node.ops):
                hits += [ast.unparse(node)] if about.search(ast.unparse(node)) else []
    assert (hits, ways) == ([], 1)
