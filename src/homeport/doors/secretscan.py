"""What looks like a secret is found before it is committed. Nobody is asked over the network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from homeport.model.edits import Finding
from homeport.model.paths import to_bytes

_LEFT_OUT = {"IPPublicDetector"}
"""An address is no secret."""
KNOWN = "a secret of this machine"


class SecretLook:
    """Satisfies `SecretScan`. Looks with the detectors of detect-secrets, which is loaded at the first look.

    `folder` is a private one; a copy of the file lies there while it is looked through. `known_in` finds this machine's own
    secrets in a text.
    """

    def __init__(self, folder: str, known_in: Callable[[str], set[str]] = lambda _: set()) -> None:
        self._folder, self._known_in = folder, known_in

    def look(self, path: str, content: bytes, known: bytes | None) -> list[Finding]:
        """As `SecretScan.look`. A line that says `pragma: allowlist secret` is passed over."""
        from detect_secrets.core import scan
        from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
        from detect_secrets.settings import transient_settings

        kinds: Iterable[type] = get_mapping_from_secret_type_to_class().values()
        plugins = [{"name": kind.__name__} for kind in kinds if kind.__name__ not in _LEFT_OUT]
        import tempfile

        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".secretscan-") as place:
            copy = os.path.join(place, _plain_name(path))
            with open(copy, "wb") as file:
                file.write(content.decode("utf-8", "replace").encode("utf-8"))
            with transient_settings({"plugins_used": plugins}) as settings:
                settings.disable_filters("detect_secrets.filters.heuristic.is_swagger_file")
                found = [(one.line_number, one.type, one.secret_value) for one in scan.scan_file(copy)]
        old = known or b""
        fresh = {(line, kind) for line, kind, value in found if not value or to_bytes(value) not in old}
        before = self._known_in(old.decode("utf-8", "replace"))
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
            if self._known_in(line) - before:
                fresh.add((number, KNOWN))
        return [Finding(path=path, line=line, kind=kind) for line, kind in sorted(fresh)]


def _plain_name(path: str) -> str:
    """The last name, whose ending tells how the file is to be read."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in path.rsplit("/", 1)[-1])
    return name[-80:] or "file"
