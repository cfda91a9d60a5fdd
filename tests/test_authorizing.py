"""Lines of authorized_keys that bind keys to tokens: ours are kept right, those of others stay byte for byte."""

from __future__ import annotations

import base64

import pytest

from homeport.decide import authorizing, hostfile, loading
from homeport.decide.authorizing import Entry, Merged, line_for, merged, public_key
from homeport.model.errors import ConfigFault, UsageFault


def key(letter: str, kind: str = "ssh-ed25519") -> str:
    raw = len(kind).to_bytes(4, "big") + kind.encode() + (32).to_bytes(4, "big") + letter.encode() * 32
    return f"{kind} {base64.b64encode(raw).decode()}"


A, B = key("a"), key("b")
CI = Entry(name="ci", token="ci", public=A)
LINE = line_for("/usr/local/bin/homeport", "shop", "production", CI)


def put(text: str, *wanted: Entry, known: tuple[str, ...] = ("ci",), environment: str = "production") -> Merged:
    return merged(text, "/usr/local/bin/homeport", "shop", environment, wanted, known)


def test_a_line_is_added_once_and_every_other_line_stays_byte_for_byte() -> None:
    others = f'# mine\r\nfrom="10.0.0.0/8",command="echo \\"{A}\\" x" {B} ada\n\n\xe9 what\udcff is this\nssh-dss AAAA old'
    made = put(others, CI)
    assert made.text == f"{others}\n{LINE}\n" and made.written == [LINE] and not made.removed and not made.taken
    said = "/usr/local/bin/homeport -p shop -e production ssh-entry --token ci --key ci"
    assert made.written == [f'restrict,command="{said}" {A} ci']
    assert authorizing.has(made.text, CI)
    assert put(made.text, CI) == Merged(text=made.text, written=[], removed=[], taken=[])


def test_another_token_changes_the_line_where_it_stands_and_a_key_that_is_gone_takes_its_line_along() -> None:
    text = f"{B} ada\n{LINE}\n{B} again\n"
    other = Entry(name="ci", token="look", public=A)
    made = put(text, other)
    assert made.text == text.replace("--token ci", "--token look") and len(made.written) == 1
    assert put(text, known=()).text == f"{B} ada\n{B} again\n" and put(text, known=()).removed == ["ci"]
    assert put(text + LINE + "\n", CI).text == text, "the second of two equal lines goes"
    assert put(text, known=("ci",)).text == text, "a key without a token keeps its line, which lets nobody in"
    assert put(text, known=(), environment="staging").text == text, "lines of another environment are not this one's"
    assert put(text, CI, environment="staging").text == text, "and its keys are bound already"


def test_a_key_that_opens_a_shell_already_is_told_and_not_touched() -> None:
    text = f"# x\n{A} ada@laptop\n"
    assert put(text, CI).taken == [("ci", 2)] and put(text, CI).text == text
    in_a_comment = f"{B} ada\f{A} x\x85\n"
    assert put(in_a_comment, CI).text == f"{in_a_comment}{LINE}\n", "one line for sshd, and one here"
    by_hand = f'command="homeport ssh-entry --token ci" {A}\n'
    assert put(by_hand, CI).taken == [("ci", 1)]


@pytest.mark.parametrize(
    "given",
    ["", "ssh-ed25519", A + "\n" + B, f'command="x" {A}', "ssh-ed25519 AAAA", key("a").replace("ssh-ed25519", "ssh-rsa", 1),
     "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----", f"{A}\x00",
     f"{A} " + "x" * 20_000],
)  # fmt: skip
def test_what_is_not_one_public_key_is_refused_and_not_repeated(given: str) -> None:
    with pytest.raises(UsageFault) as fault:
        public_key(given)
    assert fault.value.code == "public-key" and "c2VjcmV0" not in str(fault.value)


def test_a_public_key_is_read_without_its_comment() -> None:
    assert public_key(f"{A}  ada@laptop it is\r\n") == A and public_key(B + "\n\n") == B


def test_the_host_file_gets_one_table_for_a_key_and_keeps_the_rest() -> None:
    before = '# ours\nname = "prod-1"   # x\n\n[limits]\noutputs = "2GB"'
    once = hostfile.with_bound_key(before, "ci", A)
    assert once == f'{before}\n\n[keys.ci]\ntoken = "ci"\npublic = "{A}"\n'
    assert hostfile.with_bound_key(once, "ci", A) == once
    two = loading.load_host(hostfile.with_bound_key(once, "ci", B), "host.toml").keys
    assert {name: bound.public for name, bound in two.items()} == {"ci": A, "ci-2": B}
    dotted = loading.load_host(hostfile.with_bound_key(before, "a.b", A), "host.toml").keys
    assert list(dotted) == ["a.b"]
    for text, token in ((once, "other"), ('name = "x"\nkeys = {a = {token = "t"}}\n', "ci")):
        with pytest.raises(ConfigFault) as fault:
            hostfile.with_bound_key(text, token, A)
        assert fault.value.code == "host-file"


@pytest.mark.parametrize(
    "table",
    ['[keys."a b"]\ntoken = "ci"', '[keys.ci]\ntoken = "c;i"', "[keys.ci]", '[keys.ci]\ntoken = "ci"\npublic = "x"'],
)
def test_a_table_of_a_key_that_makes_no_sense_is_told(table: str) -> None:
    with pytest.raises(ConfigFault, match=r"host\.toml:\d: keys"):
        loading.load_host(f'name = "x"\n{table}\n', "host.toml")
