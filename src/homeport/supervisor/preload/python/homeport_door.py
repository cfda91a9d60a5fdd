"""Inside an unmodified Python server: a bind to a port that the supervisor holds takes the inherited socket.

When the supervisor's line ends the door is closed, and `drained` is said when the last accepted connection has
ended. This runs in the project's own interpreter, which may be an older one: plain Python 3.7, nothing of ours.
"""
# mypy: ignore-errors
# ruff: noqa: UP031, SIM105

import _thread
import fcntl
import os
import select
import socket
import struct
import time
import weakref

IDLE_AFTER = 3.0
"""Seconds until connections without traffic are told that no more is read."""
LOOK_EVERY = 0.03

Socket = socket.socket
plain = {name: getattr(Socket, name) for name in ("bind", "listen", "accept", "getsockopt", "setblocking", "settimeout")}
start_thread = _thread.start_new_thread

held = {}
"""Name of an address to (descriptor, inode)."""
taken = weakref.WeakKeyDictionary()
"""Sockets that stand for a held one, to its name."""
listened = weakref.WeakSet()
"""Those that the program has told to listen."""
accepted = weakref.WeakSet()
state = {"accepting": 0, "draining": False, "control": (-1, ""), "thread": 0}


def install(words):
    number, _, inode = words[0].partition(":")
    state["control"] = (int(number), inode)
    for word in words[1:]:
        name, _, rest = word.rpartition("=")
        numbers, _, inode = rest.partition(":")
        held[name] = (int(numbers.split("-")[0]), inode)
    Socket.bind, Socket.listen, Socket.accept = bind, listen, accept
    Socket.getsockopt, Socket.setblocking, Socket.settimeout = getsockopt, setblocking, settimeout
    os.register_at_fork(after_in_child=in_child)


def is_socket(number, inode):
    """Whether a number still means what we were started with: the variables reach grandchildren too."""
    try:
        return os.readlink("/proc/self/fd/%d" % number) == "socket:[%s]" % inode
    except OSError:
        return False


def name_of(sock, address):
    if sock.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple) and len(address) > 1:
        return str(address[1])
    if sock.family == socket.AF_UNIX and isinstance(address, (str, bytes)):
        return "u:" + os.fsencode(address).hex()
    return None


def bind(self, address):
    name = name_of(self, address)
    entry = held.get(name) if name is not None and self.type == socket.SOCK_STREAM else None
    if entry is None or not is_socket(*entry):
        return plain["bind"](self, address)
    say("starting")
    os.dup2(entry[0] if not ended() else nobody().fileno(), self.fileno(), False)
    taken[self] = name
    return None


def listen(self, *args):
    name = taken.get(self)
    if name is None:
        return plain["listen"](self, *args)
    listened.add(self)
    say("listening", name)
    return None


def getsockopt(self, level, option, *args):
    """It has listened for long; a program that looks first (gunicorn) would never say that it does."""
    if option == socket.SO_ACCEPTCONN and level == socket.SOL_SOCKET and self in taken and self not in listened:
        return 0
    return plain["getsockopt"](self, level, option, *args)


def accept(self):
    """The door never blocks, it is shared; a program that thinks it does is kept waiting here."""
    if self not in taken:
        return plain["accept"](self)
    while True:
        state["accepting"] += 1
        try:
            found = plain["accept"](self)
            accepted.add(found[0])
            return found
        except BlockingIOError:
            if self.gettimeout() is not None:
                raise
        finally:
            state["accepting"] -= 1
        watch = select.poll()
        watch.register(self.fileno(), select.POLLIN)
        watch.poll()


def setblocking(self, flag):
    plain["setblocking"](self, flag)
    stay_open(self)


def settimeout(self, value):
    plain["settimeout"](self, value)
    stay_open(self)


def stay_open(sock):
    if sock in taken:
        flags = fcntl.fcntl(sock.fileno(), fcntl.F_GETFL)
        fcntl.fcntl(sock.fileno(), fcntl.F_SETFL, flags | os.O_NONBLOCK)


def say(word, rest=""):
    """Over the supervisor's line, if this process still has it; the first word starts the one who hears."""
    number, inode = state["control"]
    if not is_socket(number, inode):
        return
    if state["thread"] != os.getpid():
        state["thread"] = os.getpid()
        start_thread(hear, ())
    try:
        os.write(number, ("%s %d %s\n" % (word, os.getpid(), rest)).encode())
    except OSError:
        pass


def ended():
    """Whether drain was said before this process came so far. It must not open the door again: it is signalled any
    moment, and what it took would be cut off."""
    number, inode = state["control"]
    watch = select.poll()
    watch.register(number, select.POLLRDHUP)
    return is_socket(number, inode) and bool(watch.poll(0))


def nobody():
    """A listening socket to which nobody ever connects."""
    found = Socket(socket.AF_UNIX, socket.SOCK_STREAM)
    plain["bind"](found, b"")
    plain["listen"](found, 1)
    found.setblocking(False)
    return found


def hear():
    number = state["control"][0]
    watch = select.poll()
    watch.register(number, select.POLLIN)
    while True:
        watch.poll()
        try:
            data = os.read(number, 4096)
        except BlockingIOError:
            time.sleep(LOOK_EVERY)
            continue
        except OSError:
            return
        if data:
            continue
        # The end of the line means drain; unless nobody is there to be answered.
        try:
            os.write(number, b"ending %d\n" % os.getpid())
        except OSError:
            return
        drain()
        return


def drain():
    # The numbers stay valid for the server's own loop; nobody ever connects to what they mean from now on.
    closed = nobody()
    for door in list(taken):
        if door.fileno() >= 0:
            os.dup2(closed.fileno(), door.fileno(), False)
    say("draining")
    began, quiet = time.monotonic(), 0
    while quiet < 3:
        time.sleep(LOOK_EVERY)
        if time.monotonic() - began > IDLE_AFTER:
            hush()
        busy = state["accepting"] or any(one.fileno() >= 0 for one in connections())
        quiet = 0 if busy else quiet + 1
    say("drained")


def connections():
    """The accepted ones; another thread may be adding to them."""
    while True:
        try:
            return list(accepted)
        except RuntimeError:
            time.sleep(0)


def hush():
    """Connections that were answered and are silent since are told that no more is read."""
    limit = IDLE_AFTER * 1000
    for one in connections():
        try:
            info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
            sent, _, received = struct.unpack_from("3I", info, 44)
            answers = struct.unpack_from("I", info, 156)[0]
            if answers and limit < sent <= received:
                one.shutdown(socket.SHUT_RD)
        except (OSError, struct.error):
            pass


def in_child():
    """A forked worker has no thread that hears: its parent has, and the signal reaches both."""
    state["thread"] = os.getpid()
    accepted.clear()
