"""homeport itself as a wheel, made from the files that run here: how it gets onto a machine that has none."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from importlib import metadata

import homeport
from homeport.model.errors import InfrastructureFault

_WHEEL = "Wheel-Version: 1.0\nGenerator: homeport\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def own_wheel() -> tuple[str, bytes]:
    """(file name, content). Raises InfrastructureFault (code `wheel`) when homeport does not run from an installation."""
    try:
        told = metadata.distribution("homeport")
    except metadata.PackageNotFoundError as fault:
        raise InfrastructureFault("homeport is not installed here, so it cannot be sent", where=homeport.__file__,
                                  next="pipx install homeport", code="wheel") from fault  # fmt: skip
    version = told.version
    info = f"homeport-{version}.dist-info"
    about = {"METADATA": told.read_text("METADATA") or "", "WHEEL": _WHEEL,
             "entry_points.txt": told.read_text("entry_points.txt") or ""}  # fmt: skip
    content = io.BytesIO()
    rows = []
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, raw in [*_files(), *((f"{info}/{name}", text.encode()) for name, text in about.items())]:
            wheel.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), raw, zipfile.ZIP_DEFLATED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(raw).digest()).rstrip(b"=").decode()
            rows.append(f"{name},sha256={digest},{len(raw)}")
        wheel.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,"]) + "\n")
    return f"homeport-{version}-py3-none-any.whl", content.getvalue()


def _files() -> Iterator[tuple[str, bytes]]:
    """Every file of the package, as it is called in a wheel."""
    package = os.path.dirname(homeport.__file__)
    for folder, folders, files in os.walk(package):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(files):
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                yield f"homeport/{os.path.relpath(path, package)}", file.read()
