"""Channels, through Apprise: one library for a hundred kinds of chat. Discord gets an embed of our own shape."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from homeport.doors.outgoing import Outgoing
from homeport.doors.secrets import value_of
from homeport.model import addresses
from homeport.model.config import Secret
from homeport.model.errors import ConfigFault, InfrastructureFault, Refused
from homeport.model.notices import Message

COLORS = {"failure": 0xD9534F, "full": 0x2E86DE, "condensed": 0x3FA45B, "suppressed": 0x888888}
KINDS = {"failure": "failure", "full": "success", "condensed": "info", "suppressed": "info"}


class AppriseChannel:
    """Satisfies `Channel`. `allowed` are addresses of this machine, or around it, that a message may be led to, besides
    the one that the channel names; `secret` reads that where it is one."""

    def __init__(self, allowed: Sequence[str] = (), secret: Callable[[Secret, str], str] = value_of) -> None:
        self._allowed, self._secret = allowed, secret

    def send(self, channel: Secret | str, message: Message) -> None:
        apprise = _library()
        url = channel if isinstance(channel, str) else self._secret(channel, "notify.urls")
        told, way_out = _Told(), Outgoing([*self._allowed, *addresses.named(url)])
        logger = logging.getLogger("apprise")
        logger.addHandler(told)
        try:
            with way_out.held():
                taken = self._told(apprise, url, message)
        finally:
            logger.removeHandler(told)
        if taken:
            return
        if way_out.refused:
            what = f"a message does not go there: {way_out.refused[-1]}, and `channels` in host.toml does not name it"
            raise Refused(what, where=f"notify.urls ({_kind(url)})", code="channels",
                          next="add it to `channels` in host.toml, as this machine's owner")  # fmt: skip
        why = told.last or "it gave no reason"
        raise InfrastructureFault(f"the channel did not take the message: {why}", where=f"notify.urls ({_kind(url)})",
                                  next="homeport notify test", code="channel")  # fmt: skip

    def _told(self, apprise: Any, url: str, message: Message) -> bool:
        way = apprise.Apprise.instantiate(url, suppress_exceptions=True)
        if way is None:
            raise ConfigFault("Apprise does not know this address", where="homeport.toml: notify.urls",
                              next="homeport notify test", code="channel-url")  # fmt: skip
        with tempfile.NamedTemporaryFile("wb", prefix="homeport-embed-", suffix=".json") as file:
            if "discord" in _schemes(way):
                file.write(msgspec.json.encode(embed(message)).replace(b"{{", b"{ {"))
                file.flush()
                way.template.add(file.name)
            one = apprise.Apprise()
            one.add(way)
            return bool(one.notify(title=message.title, body=plain(message), notify_type=KINDS[message.outcome],
                                   body_format=apprise.NotifyFormat.TEXT, interpret_escapes=False))  # fmt: skip


def embed(message: Message) -> dict[str, Any]:
    """The body of a Discord webhook; its `allowed_mentions` lets nobody be called, whatever the text says."""
    fields = [{"name": name, "value": value[:1000], "inline": len(value) < 40} for name, value in message.fields]
    if message.tail:
        fields.append({"name": "Log", "value": f"```\n{message.tail.replace('```', '` ` `')}\n```", "inline": False})
    shown: dict[str, Any] = {"title": message.title[:250], "description": message.text[:3500], "fields": fields[:25],
                             "color": COLORS[message.outcome]}  # fmt: skip
    if message.page:
        shown["url"] = message.page
    return {"embeds": [shown], "allowed_mentions": {"parse": []}}


def plain(message: Message) -> str:
    """For every other kind of channel."""
    lines = [message.text, *(f"{name}: {value}" for name, value in message.fields)]
    if message.page:
        lines.append(message.page)
    if message.tail:
        lines += ["", message.tail]
    return "\n".join(lines)


class _Told(logging.Handler):
    """The last complaint of Apprise; it names no secret, since it takes them out of addresses itself."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()[:300]


def _library() -> Any:
    try:
        import apprise
    except ImportError as fault:
        raise ConfigFault("messages need Apprise, which is not installed", where="homeport.toml: notify",
                          next='pip install "homeport[notify]"', code="no-apprise") from fault  # fmt: skip
    return apprise


def _schemes(way: Any) -> tuple[str, ...]:
    found: list[str] = []
    for name in ("protocol", "secure_protocol"):
        value = getattr(way, name, None) or ()
        found += [value] if isinstance(value, str) else list(value)
    return tuple(found)


def _kind(url: str) -> str:
    """The scheme of an address: the rest of it is often a secret."""
    return url.partition(":")[0][:20]
