"""dotenv files are data: read as written, never expanded or run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.model.envfile import fingerprint, parse


@pytest.mark.parametrize(("text", "found"), [
    ("A=1\nB=two words\n", {"A": "1", "B": "two words"}),
    ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
    ("\ufeffA=1", {"A": "1"}),
    ("export A=1\n  export\tB = 2 ", {"A": "1", "B": "2"}),
    ("A=\nB=''\nC=\"\"", {"A": "", "B": "", "C": ""}),
    ("# A=1\n\n   # B=2\nC=3", {"C": "3"}),
    ("A=1 # why\nB=a#b\nC= # nothing\nD=#x", {"A": "1", "B": "a#b", "C": "", "D": ""}),
    ("A='1 # not a comment' # one\nB=\"x # y\"", {"A": "1 # not a comment", "B": "x # y"}),
    ("A=$HOME\nB=`id`\nC=\"$(id) ${X}\"\nD='$Y'",
     {"A": "$HOME", "B": "`id`", "C": "$(id) ${X}", "D": "$Y"}),
    ('A="line\\nnext\\ttab \\"q\\" \\\\ \\$ \\z"', {"A": 'line\nnext\ttab "q" \\ $ \\z'}),
    ("A='line\\n'", {"A": "line\\n"}),
    ("KEY=\"-----BEGIN-----\nabc=\n-----END-----\"\nB=1", {"KEY": "-----BEGIN-----\nabc=\n-----END-----", "B": "1"}),
    ("A=\"no end\nB=2", {"A": '"no end', "B": "2"}),
    ("A=it's\nB=2", {"A": "it's", "B": "2"}),
    ("A=1\nA=2", {"A": "2"}),
    ("A=a=b=c", {"A": "a=b=c"}),
    ("1A=x\n-B=x\nnonsense\n=x\nC D=x\nOK=1", {"OK": "1"}),
    ("A=a\0b\nB=1", {"B": "1"}),
    ("", {}),
])  # fmt: skip
def test_a_file_is_read_as_written(text: str, found: dict[str, str]) -> None:
    assert parse(text) == found


@given(st.text())
def test_no_text_breaks_it(text: str) -> None:
    for name, value in parse(text).items():
        assert name and "=" not in name and "\0" not in value


@given(st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,9}", fullmatch=True),
                       st.text(st.characters(exclude_characters="'\0\r", exclude_categories=("Cs",)))))  # fmt: skip
def test_single_quotes_hold_anything(values: dict[str, str]) -> None:
    assert parse("".join(f"{name}='{value}'\n" for name, value in values.items())) == values


def test_a_fingerprint_follows_names_and_values_and_not_their_order() -> None:
    base = fingerprint({"A": "1", "B": "2"})
    assert base == fingerprint({"B": "2", "A": "1"})
    others = [{"A": "1"}, {"A": "1", "B": "3"}, {"A": "1B", "": "2"}, {"A": "1", "B": "2", "C": ""}, {}]
    prints = {base, *(fingerprint(other) for other in others)}
    assert len(prints) == len(others) + 1
