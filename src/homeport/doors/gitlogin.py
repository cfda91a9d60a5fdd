"""Name and password in the address of a repository: they reach git by its environment, never by a command line, which
every user of the machine may read."""

from __future__ import annotations

import re

_LOGIN = re.compile(r"(?<=://)[^/\s]*@")
"""Up to the last @ before the path: a password may hold one that nobody escaped."""
_SCHEME = re.compile(r"(https|ssh)://([^/\s]*)@([^/\s@]+)(.*)", re.DOTALL)
_HELPER = ('!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n" "$HOMEPORT_GIT_NAME" '
           '"$HOMEPORT_GIT_PASSWORD"; }; f')  # fmt: skip


def hidden(text: str) -> str:
    """Text without the logins of the addresses in it."""
    return _LOGIN.sub("", text)


def parted(origin: str) -> tuple[str, tuple[str, ...], dict[str, str]]:
    """The address as it may stand on a command line, the options of git that go with it, and the environment.

    git asks for the login only when that very host wants one; a host that it redirects to gets none.
    """
    found = _SCHEME.fullmatch(origin)
    if found is None:
        return origin, (), {}
    scheme, login, host, path = found.groups()
    name, _, password = login.partition(":")
    if scheme == "ssh":
        return f"ssh://{name}@{host}{path}", (), {}
    from urllib.parse import unquote

    bare = f"https://{host}"
    return f"{bare}{path}", ("-c", f"credential.{bare}.helper={_HELPER}"), {
        "HOMEPORT_GIT_NAME": unquote(name), "HOMEPORT_GIT_PASSWORD": unquote(password)}  # fmt: skip
