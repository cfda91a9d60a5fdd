"""Messages reach the machine itself, or what a cloud tells its machines, by no spelling, name, redirect or second look-up,
unless host.toml says so: real connections, with something that listens on every address of this machine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import pytest

from homeport.doors import outgoing
from homeport.doors.notifier import AppriseChannel
from homeport.model import addresses
from homeport.model.errors import HomeportError, InfrastructureFault, Refused
from homeport.model.notices import Message

TOLD = Message(outcome="condensed", title="a title", text="a text")


class Victim:
    """Listens on every address of this machine, IPv6 too; says 302 to `moved`, else 200, and counts who came."""

    def __init__(self) -> None:
        self.came = 0
        self.moved = ""
        both = socket.has_dualstack_ipv6()
        self._line = socket.create_server(("::" if both else "", 0), family=socket.AF_INET6 if both else socket.AF_INET,
                                          dualstack_ipv6=both)  # fmt: skip
        self.port = int(self._line.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._line.accept()
            except OSError:
                return
            self.came += 1
            with line, suppress(OSError):
                line.settimeout(5)
                line.recv(65536)
                head = f"302 Found\r\nLocation: {self.moved}" if self.moved else "200 OK"
                line.sendall(f"HTTP/1.1 {head}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

    def close(self) -> None:
        with suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        self._line.close()


@pytest.fixture
def victim() -> Iterator[Victim]:
    made = Victim()
    yield made
    made.close()


def own_address() -> str:
    """The address that this machine speaks from; 127.0.0.1 where it has no other."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


SPELLED = ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.8.9.10", "0.0.0.0", "localhost",
           "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", own_address()]  # fmt: skip
PLAIN = ["127.0.0.1", "127.8.9.10", "localhost", "[::1]", own_address()]
"""Whoever writes these means this machine."""


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """What the resolver says to `channel.example.com`, one answer after the other; the names that were asked for."""
    real, coming, asked = socket.getaddrinfo, list(answers), []

    def answer(host: Any, *args: Any, **more: Any) -> Any:
        if host in ("channel.example.com", b"channel.example.com"):
            asked.append(str(host))
            host = coming.pop(0) if len(coming) > 1 else coming[0]
        return real(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked


@pytest.mark.parametrize("host", SPELLED)
def test_no_spelling_of_this_machine_is_connected_to(victim: Victim, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an odd address in homeport.toml, and as what a name resolves to; the spelling reaches it where it is allowed."""
    if host not in PLAIN and "::ffff" not in host:  # which Apprise takes for another name
        with pytest.raises(HomeportError):
            AppriseChannel().send(f"json://{host}:{victim.port}/", TOLD)
    resolving(monkeypatch, host.strip("[]"))
    with pytest.raises(Refused) as caught:
        AppriseChannel().send(f"json://channel.example.com:{victim.port}/", TOLD)
    assert caught.value.code == "channels" and str(victim.port) in caught.value.what and victim.came == 0
    everywhere = ["0.0.0.0/0", "::/0"]
    with suppress(HomeportError):  # where the machine has no IPv6
        AppriseChannel(everywhere).send(f"json://channel.example.com:{victim.port}/", TOLD)
        assert victim.came == 1, "this spelling leads here"


@pytest.mark.parametrize("host", PLAIN)
def test_a_channel_that_plainly_names_this_machine_is_meant(victim: Victim, host: str) -> None:
    with suppress(InfrastructureFault):  # where the machine has no IPv6
        AppriseChannel().send(f"json://{host}:{victim.port}/", TOLD)
        assert victim.came == 1


@pytest.mark.parametrize("url", ["json://127.1:8080/", "json://2130706433/", "json://0.0.0.0:80/", "json://[::]/",
                                 "json://[::ffff:127.0.0.1]:80/", "json://169.254.169.254/", "json://channel.example.com/",
                                 "json://127.0.0.1:99999/", "json://[127.0.0.1/", "discord://1/2", ""])  # fmt: skip
def test_what_names_it_otherwise_names_nothing(url: str) -> None:
    assert addresses.named(url) == []


@pytest.mark.parametrize("host", ["169.254.169.254", "100.100.100.200", "fd00:ec2::254", "fe80::1", "64:ff9b::7f00:1",
                                  "2002:7f00:1::", "::ffff:169.254.169.254", "224.0.0.1", "255.255.255.255"])  # fmt: skip
def test_what_a_cloud_tells_its_machines_is_not_asked_for(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, host)
    with pytest.raises(Refused) as caught:
        AppriseChannel().send("json://channel.example.com/latest", TOLD)
    assert caught.value.code == "channels"


def test_a_redirect_to_this_machine_is_not_followed(victim: Victim) -> None:
    chat = Victim()
    try:
        for target in ("127.0.0.1", "[::ffff:127.0.0.1]", "2130706433", "localhost"):
            chat.moved, chat.came = f"http://{target}:{victim.port}/", 0
            with pytest.raises(Refused) as caught:
                AppriseChannel().send(f"json://127.0.0.2:{chat.port}/", TOLD)
            assert str(victim.port) in caught.value.what and (chat.came, victim.came) == (1, 0), target
        AppriseChannel(["127.0.0.0/8"]).send(f"json://127.0.0.2:{chat.port}/", TOLD)
        assert victim.came == 1, "where it is allowed, the redirect leads there"
    finally:
        chat.close()


def test_a_name_that_leads_elsewhere_at_the_second_look_is_caught(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolving(monkeypatch, "127.0.0.2", "127.0.0.1")
    channel, url = AppriseChannel([f"127.0.0.2:{victim.port}"]), f"json://channel.example.com:{victim.port}/"
    channel.send(url, TOLD)
    assert victim.came == 1
    with pytest.raises(Refused):
        channel.send(url, TOLD)
    assert (len(asked), victim.came) == (2, 1), "one look for each connection, and no second one for a check"


def test_mail_and_datagrams_go_the_same_way(victim: Victim) -> None:
    with pytest.raises(Refused):
        AppriseChannel().send(f"mailto://ada:secret@2130706433:{victim.port}?to=eve@example.com&mode=insecure", TOLD)
    assert victim.came == 0
    with outgoing.Outgoing(()).held(), closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as line:
        for host in ("127.0.0.1", "localhost"):
            with pytest.raises(outgoing.NotThere):
                line.sendto(b"x", (host, victim.port))


def test_the_rest_of_the_process_connects_where_it_likes(victim: Victim) -> None:
    with pytest.raises(Refused):
        AppriseChannel().send(f"json://2130706433:{victim.port}/", TOLD)
    with closing(socket.create_connection(("127.0.0.1", victim.port), 5)) as line:
        line.sendall(b"x")
        assert line.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize(
    "address", ["192.168.1.20", "10.0.0.8", "203.0.113.9", "2001:db8::1", "fd12:3456::1", "100.64.0.9"]
)
def test_a_neighbour_is_nobody_to_be_kept_from(address: str) -> None:
    outgoing.Outgoing(()).look((address, 443))


def test_an_entry_is_an_address_or_a_network_with_or_without_a_port() -> None:
    here = addresses.plain("::ffff:127.0.0.1")
    assert addresses.listed(here, 80, ["127.0.0.1"]) and addresses.listed(here, 80, ["127.0.0.0/8:80"])
    assert not addresses.listed(here, 81, ["127.0.0.1:80", "10.0.0.0/8", "[::1]:81"])
    assert addresses.listed(addresses.plain("::1"), 81, ["[::1]:81"]) and addresses.listed(
        addresses.plain("::1"), 1, ["::1"]
    )
    for wrong in ("", "localhost", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:0", "[::1]", "1.2.3.4:99999", "10.0.0.1/8"):
        with pytest.raises(ValueError):
            addresses.entry(wrong)
