"""The new content of a host file: from a file, standard input or an editor, here or at the side of whoever asked."""

from __future__ import annotations

import base64
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from homeport.cli.options import Options
from homeport.model.errors import UsageFault

if TYPE_CHECKING:
    from homeport.flow.hostediting import Source
    from homeport.model.hostfiles import Held


def source_of(options: Options, path: str, given: str | None) -> Source:
    """What `--from` names, else what the person's editor leaves. Raises UsageFault (codes `usage`, `no-terminal`)."""
    if options.call is not None:
        return _from_afar(options, path, given)
    if given is not None:
        content = read(given)
        return lambda _held, _copy, _take: content
    return _edited_with(editor(path))


def read(given: str) -> bytes:
    """A file's bytes, `-` for standard input."""
    if given == "-":
        return sys.stdin.buffer.read()
    try:
        with open(given, "rb") as file:
            return file.read()
    except OSError as fault:
        raise UsageFault(f"{given}: {fault.strerror}", where="--from", next="homeport hostfile edit --help",
                         code="usage") from fault  # fmt: skip


def editor(path: str) -> str:
    """$VISUAL, $EDITOR, or vi where somebody sits. Raises UsageFault (code `no-terminal`)."""
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ("vi" if sys.stdin.isatty() else None)
    if named is None:
        raise UsageFault("there is no terminal for an editor", where=path, code="no-terminal",
                         next=f"homeport hostfile edit {path} --from FILE, or --from - for standard input")  # fmt: skip
    return named


def _edited_with(program: str) -> Source:
    def given(_held: Held | None, copy: Callable[[], str], take: Callable[[str], bytes]) -> bytes:
        place = copy()
        _run(program, place)
        return take(place)

    return given


def _run(program: str, place: str) -> None:
    from homeport.wiring_person import at_terminal

    code = at_terminal([*shlex.split(program), place])
    if code:
        raise UsageFault(f"{program} ended with {code}; nothing was changed", where=place,
                         next="homeport hostfile list", code="editor")  # fmt: skip


# Over ssh: the file and the editor are the person's, so their side reads and edits.


def _from_afar(options: Options, path: str, given: str | None) -> Source:
    call = options.call
    assert call is not None

    def asked(held: Held | None, _copy: Callable[[], str], _take: Callable[[str], bytes]) -> bytes:
        if given is not None:
            said = call.ask(f"the content of {given}", file=given)
        else:
            there = base64.b64encode(held.content if held else b"").decode("ascii")
            said = call.ask(f"a new content of {path}", edit=there, name=os.path.basename(path))
        if not isinstance(said, dict) or "content" not in said:
            why = said.get("fault") if isinstance(said, dict) else None
            raise UsageFault(str(why or "no content came"), where=given or path, next="homeport hostfile edit --help",
                             code="editor")  # fmt: skip
        return base64.b64decode(said["content"])

    return asked


def answerer(words: Sequence[str]) -> Callable[[dict[str, Any]], Any]:
    """How this side answers a host that carries out `hostfile edit`: with the file that was named here, and no other."""
    from homeport.cli.questions import answered

    named = {word.removeprefix("--from=") for word in words if word.startswith("--from=")}
    named |= {after for word, after in pairwise(words) if word == "--from"}

    def answer(said: dict[str, Any]) -> Any:
        try:
            if "file" in said:
                if said["file"] not in named:
                    return {"fault": "that file was not named here"}
                return {"content": base64.b64encode(read(said["file"])).decode("ascii")}
            if "edit" in said and not named:
                return {"content": base64.b64encode(_edited_here(said)).decode("ascii")}
        except UsageFault as fault:
            return {"fault": fault.what}
        return answered(said)

    return answer


def _edited_here(said: dict[str, Any]) -> bytes:
    """Opens the content in the editor of this side, in a private folder that goes afterwards."""
    import tempfile

    program = editor(str(said.get("text", "")))
    with tempfile.TemporaryDirectory(prefix="homeport-") as folder:
        name = os.path.basename(str(said.get("name", ""))).lstrip(".-") or "file"
        place = os.path.join(folder, name)
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(base64.b64decode(str(said["edit"])))
        _run(program, place)
        return read(place)
