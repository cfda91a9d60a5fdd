"""The bare mirror of the repository on this host: made, fetched, written to. GIT.md's traps are closed here."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from homeport.doors.git_read import EMPTY_TREE, MirrorReader
from homeport.doors.gitcmd import GitCommand, network_environment
from homeport.doors.gitlogin import hidden, parted
from homeport.doors.refs import write_refs
from homeport.model.errors import InfrastructureFault, Refused, StateFault, UsageFault
from homeport.model.live import Entry
from homeport.model.paths import printable, to_bytes
from homeport.model.ports import Completed, Shell

OLDEST_GIT = (2, 34)
FETCH_TIMEOUT = 900.0
"""Seconds."""
ATTRIBUTES = "* -text -eol -ident -filter -working-tree-encoding -crlf !diff\n"
"""Bytes in are bytes out, whatever the commit's own attributes say."""
_SETTINGS = {
    "gc.auto": "0",
    "receive.autogc": "false",
    "maintenance.auto": "false",
    "fetch.fsckObjects": "true",
    "transfer.fsckObjects": "true",
    "fetch.fsck.zeroPaddedFilemode": "ignore",
    "fetch.fsck.badTimezone": "ignore",
    "fetch.fsck.missingSpaceBeforeDate": "ignore",
    "transfer.unpackLimit": "1",
    "core.logAllRefUpdates": "false",
}
"""The three ignored findings are harmless and common in old histories."""
_FETCHED = "homeport-fetched"
"""A file of the mirror, written when a fetch ended well: git itself keeps no such time."""
_REFS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
_AUTHOR = "homeport <homeport@localhost>"
LOOSE, PACKS = 2048, 40
"""Loose objects (counted in one of their 256 folders), and packs, above which the mirror is tidied."""
ABANDONED = 86400
"""Seconds after which the half-written pack of a git that was killed is nobody's any more."""


_REMARKS = ("Could not read from remote", "Please make sure you have", "and the repository exists", "invalid index-pack")


def told(stderr: bytes) -> str:
    """What git complained of, in one line, without the advice it always gives."""
    lines = [line.strip() for line in stderr[-2000:].decode("utf-8", "replace").splitlines()]
    return "; ".join(printable(line) for line in lines if line and not any(r in line for r in _REMARKS))


class Mirror(MirrorReader):
    """Satisfies `Git`. One per project and host, shared by its environments; ref writers wait for each other."""

    def __init__(self, path: str, origin: str, shell: Shell) -> None:
        super().__init__(os.path.abspath(path), GitCommand(path, shell))
        self.origin = os.path.abspath(origin) if origin and os.path.isdir(origin) else origin
        self.patience = FETCH_TIMEOUT
        """Seconds that the origin may take to answer, whatever it sends meanwhile."""

    @classmethod
    def open_or_create(cls, path: str, origin: str, shell: Shell) -> Mirror:
        """The mirror at `path`, made (mode 0700) when there is none.

        Raises InfrastructureFault when git is missing or too old, StateFault when something else lies there.
        """
        mirror = cls(path, origin, shell)
        if not os.path.lexists(mirror.path):
            mirror._create()
        mirror._verify()
        return mirror

    def fetch(self, shell: Shell | None = None) -> None:
        """As `Git.fetch`. Never touches refs/homeport."""
        cmd = GitCommand(self.path, shell) if shell is not None else self.cmd
        allowed, address = self._reaching()
        args = (
            *allowed, "fetch", "--quiet", "--prune", "--no-tags", "--no-write-fetch-head", "--no-auto-gc",
            "--no-recurse-submodules", "--", address, *_REFS,
        )  # fmt: skip
        with self._writing(cmd.shell):
            last = self.cmd.code("config", "--get", "homeport.origin").stdout.decode("utf-8", "replace").strip()
            if last and parted(last)[0] != address:
                self._refuse_unrelated(last, allowed, cmd)
            done = self._fetch_once(args, cmd)
            if not done.code and last != address:
                self.cmd.run("config", "homeport.origin", address)
            if done.code and b".lock" in done.stderr:
                self._clear_stale_locks()
                done = self._fetch_once(args, cmd)
        if done.code:
            said = hidden(told(done.stderr))
            if "fsck error" in said:
                raise Refused(f"git refuses an object of the origin: {said}", where=self._shown(), code="hostile-object",
                              next="find it in a checkout with git ls-tree OBJECT, and take it out of the history that "
                                   "brought it")  # fmt: skip
            code = "shallow" if "shallow" in said else "fetch"
            raise self._fault(f"the origin cannot be fetched: {said or 'git said nothing'}", code)
        with open(os.path.join(self.path, _FETCHED), "wb"):
            pass

    def fetched_at(self) -> str | None:
        """As `Git.fetched_at`."""
        try:
            written = os.stat(os.path.join(self.path, _FETCHED)).st_mtime
        except OSError:
            return None
        return datetime.fromtimestamp(written, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def twin(self) -> contextlib.AbstractContextManager[Mirror]:
        """As `Git.twin`."""
        from homeport.doors.twin import twin

        return twin(self)

    def use_ssh(self, command: str) -> None:
        """As `Git.use_ssh`."""
        self.cmd.run("config", "core.sshCommand", command)

    def push_new(self, commit: str, branch: str) -> None:
        """Makes a branch at the origin. Raises Refused (code `branch-exists`), InfrastructureFault (code `push`, or
        `push-unknown` when the origin cannot be asked either whether it took it).

        A push whose answer was lost has succeeded when the origin has the branch at that commit.
        """
        full = f"refs/heads/{branch}"
        allowed, address = self._reaching()
        args = (*allowed, "push", "--quiet", "--no-verify", "--no-follow-tags", f"--force-with-lease={full}:", "--",
                address, f"{commit}:{full}")  # fmt: skip
        done = self.cmd.code(*args, ok=range(256), timeout=self.patience, env=self._network())
        if done.code == 0:
            return
        asked = self.cmd.code(*allowed, "ls-remote", "--", address, full, ok=range(256), timeout=self.patience,
                              env=self._network())  # fmt: skip
        there = asked.stdout.split()
        if there and there[0].decode("ascii", "replace") == commit:
            return
        if there:
            raise Refused(f"the origin has a branch {printable(branch)} already", where=printable(branch),
                          next="homeport adopt --branch ANOTHER", code="branch-exists")  # fmt: skip
        said = hidden(printable(done.stderr.decode("utf-8", "replace").strip()[-2000:])) or "git said nothing"
        what, code, then = ("the branch cannot be pushed", "push", "once the origin takes it; or --branch ANOTHER")
        if asked.code:
            what, code, then = (f"it is not known whether the origin took branch {printable(branch)}", "push-unknown",
                                "looks, and goes on with that branch")  # fmt: skip
        raise InfrastructureFault(f"{what}: {said}", where=self._shown(), next=f"homeport adopt ({then})", code=code)

    def keep(self, ref: str, oid: str | None) -> None:
        """As `Git.keep`."""
        self.keep_all({ref: oid})

    def keep_all(self, refs: Mapping[str, str | None]) -> None:
        """As `keep` for several refs, all of them or none; without a git where that is sound."""
        whole = {f"refs/homeport/{ref}": oid if oid is None else self._object(oid) for ref, oid in refs.items()}
        if all(oid is None or self.has(oid) for oid in whole.values()):
            with self._writing(), contextlib.suppress(OSError):
                if write_refs(self.path, whole):
                    return
        orders = [f"delete {ref}\0\0" if oid is None else f"update {ref}\0{oid}\0\0" for ref, oid in whole.items()]
        said = to_bytes("".join(orders))
        with self._writing():
            done = self.cmd.code("update-ref", "--no-deref", "--stdin", "-z", input=said, ok=(0, 1, 128))
            if done.code and b".lock" in done.stderr:
                self._clear_stale_locks()
                done = self.cmd.code("update-ref", "--no-deref", "--stdin", "-z", input=said, ok=(0,))
        if done.code:
            why = printable(done.stderr.decode("utf-8", "replace").strip())
            raise InfrastructureFault(f"refs/homeport/{next(iter(refs))} cannot be written: {why}", where=self.path,
                                      next="homeport doctor", code="ref")  # fmt: skip

    def tidy(self) -> None:
        """Once there are many: one pack of all loose objects and of the small packs among the others. Nothing goes, what no
        ref reaches neither (git-repack(1), `--geometric`). Others may read and write meanwhile."""
        from glob import escape, glob

        objects = escape(os.path.join(self.path, "objects"))
        if len(glob(f"{objects}/17/*")) * 256 < LOOSE and len(glob(f"{objects}/pack/*.pack")) < PACKS:
            return
        for path in (*glob(f"{objects}/pack/.tmp-*"), *glob(f"{objects}/pack/tmp_*")):
            with contextlib.suppress(OSError):
                if time.time() - os.lstat(path).st_mtime > ABANDONED:
                    os.unlink(path)
        with contextlib.suppress(InfrastructureFault):  # a full disk: the next deploy tries again
            self.cmd.run("repack", "-d", "-l", "-q", "--geometric=2", timeout=FETCH_TIMEOUT)

    def kept(self, prefix: str = "") -> dict[str, str]:
        """What `keep` holds: ref (without refs/homeport/) to object id."""
        raw = self.cmd.run("for-each-ref", "--format=%(refname) %(objectname)", f"refs/homeport/{prefix}")
        pairs = (line.split(" ") for line in raw.decode("utf-8", "surrogateescape").splitlines())
        return {name.removeprefix("refs/homeport/"): oid for name, oid in pairs}

    def diff_text(self, before: Entry | None, after: Entry | None, path: str) -> str:
        """As `Git.diff_text`."""
        trees = [self.write_tree({path: entry} if entry else {}) for entry in (before, after)]
        raw = self.cmd.run("diff-tree", "-r", "-p", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-color", *trees)
        return raw.decode("utf-8", "backslashreplace")

    def write_blob(self, content: bytes) -> str:
        """Stores bytes as they are; the object id."""
        return self.cmd.run("hash-object", "-w", "--stdin", input=content, timeout=600).decode("ascii").strip()

    def write_blob_of(self, file: int) -> str:
        """As `write_blob`, for an open regular file however large: git reads it piece by piece, from its start."""
        os.lseek(file, 0, os.SEEK_SET)
        return self.cmd.run("hash-object", "-w", "--stdin", input=file, timeout=3600).decode("ascii").strip()

    def write_tree(self, entries: Mapping[str, Entry]) -> str:
        """A tree of exactly these files. Raises InfrastructureFault when an object is not here or git refuses a name."""
        return self.edit_tree(None, entries)

    def edit_tree(self, tree: str | None, changes: Mapping[str, Entry | None]) -> str:
        """A tree with some paths replaced or (None) removed; None starts from the empty tree."""
        lines = [
            to_bytes(f"{entry.mode} {entry.oid}\t{path}\0" if entry else f"0 {'0' * 40}\t{path}\0")
            for path, entry in changes.items()
        ]
        if not lines:
            return self._written_empty() if tree is None else self._object(tree)
        with self.temporary_index(tree) as index:
            self.cmd.run("update-index", "-z", "--index-info", index=index, input=b"".join(lines), timeout=600)
            return self.cmd.run("write-tree", index=index, timeout=600).decode("ascii").strip()

    def commit(self, tree: str, parents: Sequence[str], message: str, author: str = _AUTHOR) -> str:
        """A commit object (no ref); `author` is `Name <mail>`, the committer is homeport."""
        name, _, mail = author.partition("<")
        who = {"NAME": name.strip() or "homeport", "EMAIL": mail.rstrip("> ") or "homeport@localhost"}
        env = {f"GIT_AUTHOR_{key}": value for key, value in who.items()}
        env |= {"GIT_COMMITTER_NAME": "homeport", "GIT_COMMITTER_EMAIL": "homeport@localhost"}
        onto = [part for parent in parents for part in ("-p", self._object(parent))]
        raw = self.cmd.run("commit-tree", self._object(tree), *onto, "-F", "-", input=to_bytes(message), env=env)
        return raw.decode("ascii").strip()

    @contextlib.contextmanager
    def temporary_index(self, tree: str | None = None) -> Iterator[str]:
        """The path of an index file of one's own, filled from a tree; gone afterwards."""
        import tempfile

        with tempfile.TemporaryDirectory(dir=self.path, prefix="tmp-index-") as folder:
            index = os.path.join(folder, "index")
            if tree is not None:
                self.cmd.run("read-tree", self._object(tree), index=index, timeout=600)
            yield index

    def _written_empty(self) -> str:
        self.cmd.run("hash-object", "-w", "-t", "tree", "--stdin", input=b"")
        return EMPTY_TREE

    def _create(self) -> None:
        """Made beside its place and renamed, so that no half-made mirror is ever met."""
        self._check_version()
        above = os.path.dirname(self.path)
        os.makedirs(above, mode=0o700, exist_ok=True)
        import tempfile

        with tempfile.TemporaryDirectory(dir=above, prefix=".new-mirror-", ignore_cleanup_errors=True) as folder:
            made = os.path.join(folder, "repo.git")
            git = GitCommand(made, self.cmd.shell)
            git.run("init", "--quiet", "--bare", "--template=", "--object-format=sha1", "--initial-branch=main", made)
            for key, value in _SETTINGS.items():
                git.run("config", key, value)
            os.chmod(made, 0o700)
            try:
                os.rename(made, self.path)
            except OSError:
                if not os.path.isdir(self.path):
                    raise
                import shutil

                shutil.rmtree(made, ignore_errors=True)

    def _verify(self) -> None:
        parts = (os.path.join(self.path, name) for name in ("objects", "refs", "config"))
        if not self._has_head() or not all(map(os.path.exists, parts)):
            raise StateFault("this is not a mirror that homeport made", where=self.path,
                             next=f"mv {self.path} {self.path}.old, then run the command again", code="mirror")  # fmt: skip
        info = os.path.join(self.path, "info")
        attributes = os.path.join(info, "attributes")
        try:
            with open(attributes, encoding="utf-8", errors="replace") as file:
                if file.read() == ATTRIBUTES:
                    return
        except FileNotFoundError:
            os.makedirs(info, exist_ok=True)
        import tempfile

        with tempfile.NamedTemporaryFile("w", dir=info, delete=False) as fresh:
            fresh.write(ATTRIBUTES)
        os.replace(fresh.name, attributes)

    def _has_head(self) -> bool:
        """Without a readable HEAD git takes the folder for no repository, and blames whoever asked."""
        try:
            with open(os.path.join(self.path, "HEAD"), "rb") as file:
                return file.read(100).startswith(b"ref: refs/")
        except OSError:
            return False

    def _refuse_unrelated(self, last: str, protocol: tuple[str, ...], cmd: GitCommand) -> None:
        """An origin may move; another project of the same name must not take this mirror over.

        Raises StateFault (code `other-origin`) when the new origin shares no first commit with what is here.
        """
        aside = "refs/homeport/moved"
        quietly = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-gc", "--no-recurse-submodules")
        address = parted(self.origin)[0]
        done = self._fetch_once((*protocol, "fetch", *quietly, "--", address, f"+refs/heads/*:{aside}/*"), cmd)
        roots = [set(self.cmd.run("rev-list", "--max-parents=0", f"--glob={where}").split())
                 for where in ("refs/heads", aside)]  # fmt: skip
        names = self.cmd.run("for-each-ref", "--format=delete %(refname)", aside)
        self.cmd.run("update-ref", "--stdin", "--no-deref", input=names)
        if not done.code and roots[0] and roots[1] and not roots[0] & roots[1]:
            raise StateFault(
                f"another project of this name is here: it comes from {hidden(printable(last))}, "
                "and shares no history with this one", where=self._shown(), code="other-origin",
                next="give one of the two another [project] name, or set HOMEPORT_STATE",
            )  # fmt: skip

    def _check_version(self) -> None:
        said = self.cmd.run("version").decode("utf-8", "replace")
        found = re.search(r"(\d{1,4})\.(\d{1,4})", said)
        if found is None or (int(found[1]), int(found[2])) < OLDEST_GIT:
            raise InfrastructureFault(f"{printable(said.strip())} is too old; homeport needs git 2.34 or newer",
                                      where="PATH", next="install a newer git, then: homeport doctor",
                                      code="old-git")  # fmt: skip

    def _reaching(self) -> tuple[tuple[str, ...], str]:
        """Options of git to reach the origin with, and its address without a password."""
        local = self._check_origin()
        address, options, _ = parted(self.origin)
        return ("-c", f"protocol.file.allow={'always' if local else 'never'}", *options), address

    def _network(self) -> dict[str, str]:
        return {**network_environment(), **parted(self.origin)[2]}

    def _check_origin(self) -> bool:
        """Whether the origin is a folder of this machine."""
        if not self.origin:
            raise UsageFault("nothing says where the repository comes from", where="homeport.toml: [project] repo",
                             next='write [project] repo = "..." into homeport.toml', code="no-origin")  # fmt: skip
        helper = "::" in self.origin.split("/")[0]
        if helper or self.origin.startswith("-") or re.search(r"[\x00-\x1f\x7f]", self.origin):
            raise UsageFault(f"{printable(self.origin)!r} cannot be a repository", where="homeport.toml: [project] repo",
                             next="give a path, an ssh or an https address", code="bad-origin")  # fmt: skip
        self._check_version()
        scheme = self.origin.split("://")[0] if "://" in self.origin else ""
        if scheme not in ("", "file", "ssh", "https"):
            raise UsageFault(f"homeport fetches over ssh and https, not over {printable(scheme)}", where=self._shown(),
                             next="git remote set-url origin URL, with an ssh or https address",
                             code="bad-origin")  # fmt: skip
        path = self.origin
        if self.origin.startswith("file://"):
            from urllib.parse import urlsplit

            path = urlsplit(self.origin).path
        local = self.origin.startswith(("/", "./", "../", "file://")) or os.path.isdir(path)
        if local and not os.path.isdir(path):
            raise self._fault("the origin is not there: no such folder", "no-origin")
        if local and any(os.path.exists(os.path.join(path, at)) for at in ("shallow", ".git/shallow")):
            raise self._fault("the origin is a shallow clone, which lacks history that homeport needs", "shallow")
        return local

    def _fetch_once(self, args: Sequence[str], cmd: GitCommand) -> Completed:
        try:
            return cmd.code(*args, ok=range(256), timeout=self.patience, env=self._network(), interruptible=True)
        except InfrastructureFault as fault:
            raise self._fault(hidden(fault.what), fault.code) from None

    def _fault(self, what: str, code: str) -> InfrastructureFault:
        look = f"git ls-remote {shlex.quote(self._shown())}   (once it answers: the same command again)"
        return InfrastructureFault(what, where=self._shown(), next=look, code=code)

    def _shown(self) -> str:
        """The origin without what may be a password."""
        return hidden(printable(self.origin))

    @contextlib.contextmanager
    def _writing(self, shell: Shell | None = None) -> Iterator[None]:
        """Held by every writer of refs: another environment of the project may fetch at the same moment, from an origin
        that does not answer. With the shell of a deploy the wait ends when that is cancelled (Cancelled)."""
        try:
            handle = os.open(os.path.join(self.path, "homeport.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as fault:
            raise InfrastructureFault(f"the mirror cannot be locked: {fault.strerror}", where=self.path,
                                      next=f"df -h {self.path}", code="lock") from fault  # fmt: skip
        try:
            if shell is None:
                fcntl.flock(handle, fcntl.LOCK_EX)
            else:
                _lock_patiently(handle, shell, self.path)
            yield
        finally:
            os.close(handle)

    def _clear_stale_locks(self) -> None:
        """What a killed git left; only called while nobody else can be writing refs."""
        for folder, _, files in os.walk(os.path.join(self.path, "refs")):
            for name in files:
                if name.endswith(".lock"):
                    os.unlink(os.path.join(folder, name))
        for name in ("packed-refs.lock", "shallow.lock"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.path, name))


def _lock_patiently(handle: int, shell: Shell, where: str) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            shell.go_on(where)
            time.sleep(0.05)
