"""When a started process counts as ready: http, tcp, a line of output, sd_notify, or that it listens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import struct
from collections.abc import Iterator

from homeport.supervisor.addresses import Address, parse_probe
from homeport.supervisor.instance import Instance, first
from homeport.supervisor.messages import Ready

EVERY = 0.03
"""Seconds between two looks."""
SETTLED = 1.0
"""Seconds after which a process that shows no sign of listening, and did not end, is believed."""
ONE_TRY = 2.0
"""Seconds one request may take; it grows no longer because a try can be swallowed by the old process."""
EPOLL = re.compile(rb"tfd:\s+\d+ .*ino:([0-9a-f]+)")


async def wait_ready(instance: Instance) -> str:
    """Empty when it is ready, else why not. Ends at once when the process does."""
    spec, ready = instance.spec, instance.spec.ready or Ready()
    work = asyncio.ensure_future(_ready(instance, ready))
    try:
        await first(asyncio.shield(work), instance.ended(), timeout=spec.patience)
        if not instance.alive:
            return f"{instance.said()} before it was ready"
        if work.done():
            return ""
        return f"it was not ready after {spec.patience:g} s ({_awaited(instance, ready)})"
    finally:
        work.cancel()


def _awaited(instance: Instance, ready: Ready) -> str:
    if ready.notify:
        return "it sent no READY=1"
    if ready.line:
        return f"no output line held {ready.line!r}"
    if ready.http or ready.tcp:
        return f"nothing healthy at {ready.http or ready.tcp}"
    if instance.child.port:
        return f"it does not listen on $PORT, {instance.child.port}"
    missing = sorted(set(instance.sockets) - (instance.control.ports if instance.control else set()))
    return f"it does not listen on {', '.join(missing)}"


async def _ready(instance: Instance, ready: Ready) -> None:
    if ready.notify or ready.line:
        await instance.line_seen.wait()
        return
    own = [f"127.0.0.1:{instance.child.port}"] if instance.child.port else []
    if not own:
        await _listening(instance)
    if ready.http or ready.tcp or own:
        tcp = ready.tcp or ("" if ready.http else "".join(own))
        address, target = parse_probe(ready.http or "", tcp, own or instance.spec.listen)
        while not await _answers(address, target):
            await asyncio.sleep(EVERY)


async def _listening(instance: Instance) -> None:
    """On a shared socket an answer may come from the old process; only what the new one does itself counts."""
    if not instance.sockets:
        if instance.spec.ready is None:
            await asyncio.sleep(SETTLED)
        return
    began = asyncio.get_running_loop().time()
    while True:
        if instance.control is not None and instance.spec.how != "stop-first":
            if set(instance.sockets) <= instance.control.ports:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(instance.control.changed.wait(), 1.0)
            instance.control.changed.clear()
            continue
        if instance.control is not None and set(instance.sockets) <= instance.control.ports:
            return
        if set(instance.sockets.values()) <= set(_polled(instance.pid)):
            return
        if asyncio.get_running_loop().time() - began > SETTLED:
            return
        await asyncio.sleep(EVERY)


def _polled(pid: int) -> Iterator[int]:
    """Inodes that a process and its descendants wait for with epoll."""
    todo = [pid]
    for one in todo:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{task}/children", encoding="ascii") as file:
                    todo += [int(child) for child in file.read().split() if len(todo) < 200]
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{one}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{one}/fd/{name}") == "anon_inode:[eventpoll]":
                        with open(f"/proc/{one}/fdinfo/{name}", "rb") as file:
                            yield from (int(found, 16) for found in EPOLL.findall(file.read()))


async def _answers(address: Address, target: str) -> bool:
    """One try over a new connection; with a target an HTTP status from 200 to 399 is wanted."""
    try:
        async with asyncio.timeout(ONE_TRY):
            return await _ask(address, target)
    except (OSError, TimeoutError):
        return False


async def _ask(address: Address, target: str) -> bool:
    loop = asyncio.get_running_loop()
    family, place = address.reach()
    with socket.socket(family, socket.SOCK_STREAM) as line:
        line.setblocking(False)
        await loop.sock_connect(line, place)
        if not target:
            return True
        request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: homeport\r\nConnection: close\r\n\r\n"
        await loop.sock_sendall(line, request.encode("ascii"))
        head = b""
        while b"\r\n" not in head and len(head) < 4096:
            more = await loop.sock_recv(line, 4096)
            if not more:
                break
            head += more
    found = re.match(rb"HTTP/1\.[01] ([0-9]{3})[ \r]", head)
    return found is not None and 200 <= int(found[1]) <= 399


def open_notify(instance_id: str) -> socket.socket:
    """A datagram socket in the abstract namespace, so that another user's process reaches it too."""
    found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    found.setblocking(False)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    found.bind(f"\0homeport/{instance_id}")
    return found


def hear_notify(instance: Instance) -> None:
    """Reads what came on the notify socket; only the instance's own processes are believed."""
    if instance.notify is None:
        return
    for _ in range(16):
        try:
            data, ancillary, _, _ = instance.notify.recvmsg(4096, 256)
        except OSError:
            return
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS and len(content) >= 12:
                if _belongs(struct.unpack("3i", content[:12])[0], instance) and b"READY=1" in data.split(b"\n"):
                    instance.line_seen.set()
            elif level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                for number, in struct.iter_unpack("i", content[: len(content) // 4 * 4]):
                    os.close(number)


def _belongs(pid: int, instance: Instance) -> bool:
    with contextlib.suppress(OSError):
        return os.getsid(pid) == instance.pid
    return False
