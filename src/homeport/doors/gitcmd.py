"""One way to call git: the caller's environment, configuration, hooks and helpers never reach it."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # not from typing: this is loaded before anything that takes time (doors/early.py)
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from homeport.model.ports import Completed, Shell

Placed = tuple[tuple[str, ...], str, dict[str, str]]
"""The whole command line, the folder to run it in, and the whole environment."""
_OPTIONS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.fsync=all",
    "core.quotePath=false",
    "core.pager=cat",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.bigFileThreshold=32m",
    "protocol.allow=never",
    "protocol.ssh.allow=always",
    "protocol.https.allow=always",
)
_PREFIX = ("git", "--no-pager", *(part for option in _OPTIONS for part in ("-c", option)))
_ENVIRONMENT = {
    "HOME": "/nonexistent",
    "LC_ALL": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
}
_NETWORK = (
    "HOME",
    "SSH_AUTH_SOCK",
    "GIT_SSH_COMMAND",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "https_proxy",
    "no_proxy",
)


def network_environment() -> dict[str, str]:
    """What a fetch may see of the caller's environment: the user's own ssh set-up, no git settings."""
    return {name: os.environ[name] for name in _NETWORK if name in os.environ}


class GitCommand:
    """Runs git on one repository, with nothing inherited but PATH."""

    def __init__(self, git_dir: str, shell: Shell) -> None:
        self.git_dir = os.path.abspath(git_dir)
        self.shell = shell

    def run(
        self,
        *args: str,
        index: str | None = None,
        work_tree: str | None = None,
        input: bytes | int | None = None,
        ok: Iterable[int] = (0,),
        timeout: float = 120,
        env: Mapping[str, str] | None = None,
        output: int | None = None,
    ) -> bytes:
        """What git printed. `timeout` is in seconds; `env` adds to the cleared environment; `input` and `output` as for
        `Shell.run`.

        Raises InfrastructureFault when git cannot be started, times out or ends with a status not in `ok`.
        """
        done = self.code(
            *args, index=index, work_tree=work_tree, input=input, ok=ok, timeout=timeout, env=env, output=output
        )
        return done.stdout

    def code(
        self,
        *args: str,
        index: str | None = None,
        work_tree: str | None = None,
        input: bytes | int | None = None,
        ok: Iterable[int] = (0, 1),
        timeout: float = 120,
        env: Mapping[str, str] | None = None,
        interruptible: bool = False,
        output: int | None = None,
    ) -> Completed:
        """As `run`, with the exit status: for commands whose status 1 is an answer; `interruptible` as for `Shell.run`."""
        argv, cwd, whole = self.placed(*args, index=index, work_tree=work_tree, env=env)
        more = {} if output is None else {"output": output}
        return self.shell.run(argv, cwd=cwd, env=whole, input=input, timeout=timeout, ok=ok, interruptible=interruptible,
                              **more)  # fmt: skip

    def placed(
        self, *args: str, index: str | None = None, work_tree: str | None = None, env: Mapping[str, str] | None = None
    ) -> Placed:
        """As the function of that name, for this repository."""
        return placed(self.git_dir, *args, index=index, work_tree=work_tree, env=env)


def placed(git_dir: str, *args: str, index: str | None = None, work_tree: str | None = None,
           env: Mapping[str, str] | None = None) -> Placed:  # fmt: skip
    """How git is called on a repository, with nothing inherited but PATH."""
    whole = {**_ENVIRONMENT, "PATH": os.environ.get("PATH", os.defpath), "GIT_DIR": git_dir}
    if index is not None:
        whole["GIT_INDEX_FILE"] = os.path.abspath(index)
    if work_tree is not None:
        whole["GIT_WORK_TREE"] = os.path.abspath(work_tree)
    whole.update(env or {})
    cwd = os.path.abspath(work_tree) if work_tree is not None else git_dir
    cwd = cwd if os.path.isdir(cwd) else "/"
    return (*_PREFIX, *args), cwd, whole
