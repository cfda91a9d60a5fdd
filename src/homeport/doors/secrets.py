"""Takes secrets out of text before it is written anywhere (P9)."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress

from msgspec import Struct

from homeport.model.config import HostConfig, Secret
from homeport.model.errors import ConfigFault, Refused
from homeport.model.paths import printable

SHORTEST = 6
"""Characters; shorter values would blacken ordinary words."""
LARGEST = 64 * 1024
"""Bytes of a file with a secret."""
LIKE_A_KEY = 20
"""Characters of a part of an address that is taken for a key."""
_CREDENTIALS = re.compile(r"(?:(?<=://)[^/\s:@'\"]*:[^/\s'\"]+|(?:(?<=https://)|(?<=http://))[^/\s'\"]+)@")


_SECRETIVE = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "PASS", "CREDENTIAL", "CREDENTIALS", "KEY", "KEY_BASE")


def secretive(name: str) -> bool:
    """Whether a variable of that name usually holds a secret."""
    return name.upper().endswith(_SECRETIVE)


class Redactor:
    """Satisfies `Secrets`: known values, and credentials in URLs, become `***`. Threads may share it."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.add(values)

    def add(self, values: Iterable[str]) -> None:
        """Values to hide from now on; of those with several lines each line, and the form they have in a URL."""
        before = len(self._known)
        for value in values:
            for part in {value.strip(), *(line.strip() for line in value.splitlines())}:
                self._known |= {form for form in (part, _in_url(part)) if len(form) >= SHORTEST}
        if len(self._known) == before:
            return
        longest_first = sorted(self._known, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def learn(self, told: object, variables: Mapping[str, str] = {}) -> None:
        """Each secret that a configuration refers to, wherever in it; those that are not there are not missed. Of an
        environment, the values whose names say that they are secrets, and the passwords in addresses."""
        self.add(value for name, value in variables.items() if secretive(name))
        self.add(password for value in variables.values() if "://" in value for password in _logins(value))
        if isinstance(told, Secret):
            with suppress(ConfigFault):
                self.add(_parts(value_of(told, "")))
        elif isinstance(told, Struct):
            for name in told.__struct_fields__:
                self.learn(getattr(told, name))
        elif isinstance(told, dict | list):
            for one in told.values() if isinstance(told, dict) else told:
                self.learn(one)

    def known_in(self, text: str) -> set[str]:
        """The values in the text that are secrets here."""
        return set(self._pattern.findall(text)) if self._pattern is not None else set()

    def redact(self, text: str) -> str:
        if self._pattern is not None:
            text = self._pattern.sub("***", text)
        return _CREDENTIALS.sub("***@", text) if "://" in text else text


def _parts(value: str) -> list[str]:
    """A secret; of an address also its password and each long part, as those of chat services have them."""
    _, sign, rest = value.partition("://")
    long = [part for part in re.split("[/?&=@]", rest) if len(part) >= LIKE_A_KEY]
    return [value, *_logins(value), *long] if sign else [value]


def _logins(address: str) -> set[str]:
    """The password in an address, as it stands there and as it is meant."""
    from urllib.parse import unquote

    login, sign, _ = re.split("[/?#]", address.partition("://")[2], maxsplit=1)[0].rpartition("@")
    password = login.partition(":")[2]
    return {password, unquote(password)} if sign else set()


class Keyring:
    """Secrets that homeport.toml names, as far as the owner of this machine lets a commit name them.

    Root can read every file, so as root a commit may name those below the folder of host.toml, and those that host.toml
    lists under `[secrets]`; else it could have any file of the machine sent to an address that it names too.
    """

    def __init__(self, host_file: str, host: HostConfig | None) -> None:
        self._folder = os.path.dirname(host_file)
        self._listed = {secret.file for secret in host.secrets.values()} if host is not None else set()

    def value_of(self, secret: Secret, where: str) -> str:
        """As the function of that name. Raises Refused (code `secrets`) too."""
        if secret.file is not None and os.geteuid() == 0 and secret.file not in self._listed:
            folder = os.path.realpath(os.path.dirname(secret.file))
            if not f"{folder}/".startswith(os.path.realpath(self._folder) + "/"):
                raise Refused(f"{printable(secret.file)} is no file that a commit may name as a secret here", where=where,
                              next="add it to [secrets] in host.toml, as this machine's owner, or put it beside host.toml",
                              code="secrets")  # fmt: skip
        return value_of(secret, where)


def _read(path: str) -> str:
    """What a small ordinary file holds: never waits, as a pipe would make it. Raises OSError, UnicodeDecodeError."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is no ordinary file")
        raw = file.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise OSError(errno.EFBIG, "it is too large for a secret")
    return raw.decode()


def _in_url(value: str) -> str:
    from urllib.parse import quote

    return quote(value, safe="", errors="surrogateescape") if len(value) >= SHORTEST else ""


def value_of(secret: Secret, where: str) -> str:
    """What a reference to a secret stands for, without the white space around it.

    Raises ConfigFault (code `no-secret`) when it is not there, naming the key and never the value.
    """
    if secret.env is not None:
        found, source = os.environ.get(secret.env, ""), f"the variable {secret.env}"
    else:
        source = f"the file {secret.file}"
        try:
            found = _read(secret.file or "")
        except (OSError, UnicodeDecodeError) as fault:
            why = fault.strerror if isinstance(fault, OSError) else "it is not text"
            raise ConfigFault(f"{source} cannot be read: {why}", where=where, next="homeport check",
                              code="no-secret") from fault  # fmt: skip
    if not found.strip():
        raise ConfigFault(f"{source} is empty or not set", where=where, next="homeport check", code="no-secret")
    return found.strip()
