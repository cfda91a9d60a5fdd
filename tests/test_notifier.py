"""D17: messages reach real HTTP servers through Apprise, in Discord's own shape where it is Discord."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from homeport.doors.notifier import AppriseChannel
from homeport.model.config import Secret
from homeport.model.errors import ConfigFault, InfrastructureFault
from homeport.model.notices import Message
from tests.channel import ChannelServer

FAILED = Message(outcome="failure", title="shop production: failed", text="api: unhealthy {{app_title}} \\ \"x\"",
                 fields=(("Commit", "abc Prices"), ("Empty", "x" * 2000)), tail="a\n```\n@everyone b",
                 page="https://git.example.com/o/r/commit/abc")  # fmt: skip


@pytest.fixture
def server() -> Iterator[ChannelServer]:
    made = ChannelServer()
    try:
        yield made
    finally:
        made.close()


def test_discord_gets_an_embed_in_which_nobody_can_be_called(
    server: ChannelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apprise.plugins.discord import NotifyDiscord

    # Apprise's own plugin with Discord's address changed: everything else is what Discord gets
    monkeypatch.setattr(NotifyDiscord, "notify_url", f"http://127.0.0.1:{server.port}/api/webhooks")
    AppriseChannel(["127.0.0.1"]).send(f"discord://{'1' * 18}/{'t' * 60}/", FAILED)
    (sent,) = server.taken
    assert sent["path"] == f"/api/webhooks/{'1' * 18}/{'t' * 60}"
    assert sent["allowed_mentions"] == {"parse": []}
    (embed,) = sent["embeds"]
    assert (embed["title"], embed["url"], embed["color"]) == (FAILED.title, FAILED.page, 0xD9534F)
    assert "app_title" in embed["description"], "what looks like a placeholder stays what it is"
    assert embed["description"].endswith('\\ "x"')
    names = [field["name"] for field in embed["fields"]]
    assert names == ["Commit", "Empty", "Log"]
    assert max(len(field["value"]) for field in embed["fields"]) <= 1024
    assert embed["fields"][2]["value"].count("```") == 2


def test_any_other_channel_gets_title_and_text_and_a_secret_address_comes_from_a_file(
    server: ChannelServer, tmp_path: Path
) -> None:
    (tmp_path / "url").write_text(f"json://127.0.0.1:{server.port}/hook\n")
    AppriseChannel().send(Secret(file=str(tmp_path / "url")), FAILED)
    (sent,) = server.taken
    assert (sent["title"], sent["type"], sent["path"]) == (FAILED.title, "failure", "/hook")
    for part in (FAILED.text, "Commit: abc Prices", FAILED.page, "@everyone b"):
        assert part in sent["message"]


def test_what_does_not_take_the_message_is_told_without_its_address(server: ChannelServer) -> None:
    server.status = 500
    url = f"json://user:hunter2@127.0.0.1:{server.port}/secret-path"
    with pytest.raises(InfrastructureFault) as caught:
        AppriseChannel().send(url, FAILED)
    assert caught.value.code == "channel"
    assert "hunter2" not in str(caught.value) and "secret-path" not in str(caught.value)
    with pytest.raises(ConfigFault) as wrong:
        AppriseChannel().send("nothing://known", FAILED)
    assert wrong.value.code == "channel-url"
