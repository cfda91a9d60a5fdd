"""P8: a live folder that belongs to somebody else is refused before anything is tried."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from homeport.doors.targetbook import refuse_unowned
from homeport.model.errors import Refused
from homeport.model.live import Target

NOBODY = 65534


@contextmanager
def somebody_else() -> Iterator[None]:
    """This process without root's rights, as an ordinary user has none."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_live_folder_of_another_user_is_refused_and_names_its_owner(tmp_path: Path) -> None:
    live = tmp_path / "live"
    live.mkdir(mode=0o755)
    root = os.open(live, os.O_RDONLY | os.O_DIRECTORY)
    target = Target(name="site", path=str(live), source="site")
    try:
        refuse_unowned(target, root)
        with somebody_else(), pytest.raises(Refused) as refused:
            refuse_unowned(target, root)
        live.chmod(0o777)
        with somebody_else():
            refuse_unowned(target, root)
    finally:
        os.close(root)
    assert (refused.value.code, refused.value.where) == ("unowned", str(live))
    assert "user 0" in refused.value.what and refused.value.next
    assert not list(live.iterdir())
