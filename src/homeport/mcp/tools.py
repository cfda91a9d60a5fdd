"""The tools: a name, what an agent reads about it, its parameters, and the command line it stands for. Pure.

A tool is a verb and nothing more, so the command line's rules, refusals and audit are those of the tool.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta, Struct

from homeport.model.errors import UsageFault

Text = Annotated[str, Meta(max_length=4096)]
Service = Annotated[str, Meta(min_length=1, max_length=4096, description="A service of homeport.toml.")]
Path = Annotated[str, Meta(min_length=1, max_length=4096,
                           description="As in the repository, as in the live folder, or absolute.")]  # fmt: skip
Services = Annotated[list[Service], Meta(max_length=1000, description="Only these services; none: all of them.")]
Paths = Annotated[list[Path], Meta(max_length=10_000)]
Because = Annotated[str, Meta(min_length=1, max_length=4096, description="Why; shown to people wherever it matters.")]


class Asked(Struct, forbid_unknown_fields=True, kw_only=True):
    """What every tool may be told."""

    environment: Annotated[str, Meta(description="Needed when the project has several; see `status`.")] | None = None

    def words(self) -> list[str]:
        """What follows the verb."""
        return []


class OfServices(Asked):
    services: Services = []

    def words(self) -> list[str]:
        return ["--", *self.services]


class OnSomeServices(Asked):
    services: Annotated[list[Service], Meta(min_length=1, max_length=1000)]

    def words(self) -> list[str]:
        return ["--", *self.services]


class Planned(OfServices):
    ref: Annotated[str, Meta(description="A commit, branch or tag; default: the tip of the branch.")] | None = None
    keep_drift: Annotated[bool, Meta(description="Leave edits on the host as they are.")] = False
    discard_drift: Annotated[bool, Meta(description="Put edits back; their bytes are saved first.")] = False
    allow_mass_delete: Annotated[bool, Meta(description="Also when most files of a target would go.")] = False

    def words(self) -> list[str]:
        flags = {"--keep-drift": self.keep_drift, "--discard-drift": self.discard_drift,
                 "--allow-mass-delete": self.allow_mass_delete}  # fmt: skip
        return [*_option("--ref", self.ref), *(name for name, on in flags.items() if on), *super().words()]


class Deployed(Planned):
    over_try: Annotated[bool, Meta(description="End live tries that the commit does not contain.")] = False
    request_id: Annotated[str, Meta(max_length=200, description="Your own name for this request: asking again with it "
                                    "finds the same deploy, also after a lost connection.")] | None = None  # fmt: skip

    def words(self) -> list[str]:
        return [*(["--over-try"] if self.over_try else []), *_option("--request-id", self.request_id), *super().words()]


class Tried(OfServices):
    keep_drift: Annotated[bool, Meta(description="Leave edits on the host as they are.")] = False

    def words(self) -> list[str]:
        return [*(["--keep-drift"] if self.keep_drift else []), *super().words()]


class Returned(Asked):
    to: Annotated[str, Meta(description="A deploy's id or a commit; default: the success before.")] | None = None

    def words(self) -> list[str]:
        return _placed(self.to)


class OfDeploy(Asked):
    deploy: Annotated[str, Meta(description="A deploy's id; default: the one that runs.")] | None = None

    def words(self) -> list[str]:
        return _placed(self.deploy)


class OneDeploy(Asked):
    deploy: Annotated[str, Meta(min_length=1, description="A deploy's id, as in `history`.")]

    def words(self) -> list[str]:
        return _placed(self.deploy)


class Counted(Asked):
    count: Annotated[int, Meta(ge=1, le=1000)] = 20

    def words(self) -> list[str]:
        return ["-n", str(self.count)]


class Printed(Asked):
    of: Annotated[str, Meta(description="A service or a deploy's id; default: the newest deploy.")] | None = None
    lines: Annotated[int, Meta(ge=1, le=10_000, description="Of a service: how many lines back.")] = 200

    def words(self) -> list[str]:
        return ["-n", str(self.lines), *_placed(self.of)]


class Compared(Asked):
    service: Service | None = None
    paths: Paths = []

    def words(self) -> list[str]:
        return ["--", *([self.service] if self.service else []), *self.paths]


class Adopted(Compared):
    branch: Annotated[str, Meta(max_length=200, description="The new branch; default: one is named.")] | None = None
    message: Annotated[str, Meta(max_length=20_000, description="The commit message; trailers are added.")] | None = None
    merge: Annotated[bool, Meta(description="Merge the request at once; needs a forge.")] = False
    foreign: Annotated[bool, Meta(description="Also what another deployer wrote.")] = False

    def words(self) -> list[str]:
        flags = {"--merge": self.merge, "--foreign": self.foreign}
        return [*_option("--branch", self.branch), *_option("--message", self.message),
                *(name for name, on in flags.items() if on), *super().words()]  # fmt: skip


class Accepted(Asked):
    paths: Annotated[list[Path], Meta(min_length=1, max_length=10_000)]
    because: Because
    until: Annotated[str, Meta(description="A duration such as 7d, or a date such as 2030-01-31.")]

    def words(self) -> list[str]:
        return [*_option("--because", self.because), *_option("--until", self.until), "--", *self.paths]


class Discarded(Asked):
    paths: Annotated[list[Path], Meta(min_length=1, max_length=10_000)]

    def words(self) -> list[str]:
        return ["--", *self.paths]


class Explained(Asked):
    explain: Annotated[str, Meta(description="ACTION[:MATCH], such as write:api/auth/login.js: which rule decides "
                                 "about it, and why. Default: the rules in force.")] | None = None  # fmt: skip

    def words(self) -> list[str]:
        return _option("--explain", self.explain)


class Ended(Asked):
    all: Annotated[bool, Meta(description="Also those that ended.")] = False

    def words(self) -> list[str]:
        return ["--all"] if self.all else []


class Tool(Struct, frozen=True, kw_only=True):
    """One tool. `says` is what an agent decides by."""

    verb: str
    says: str
    takes: type[Asked] = Asked
    changes: bool = False
    destroys: bool = False
    """It takes away what was live, or what somebody wrote there."""
    differs: bool = False
    """Exit code 3 is an answer: there is a difference."""
    plain: bool = False
    """Its answer is text."""
    at_checkout: bool = False
    """It is about the checkout that the server was started in; a token has none."""

    @property
    def name(self) -> str:
        return self.verb.replace(" ", "_")

    def schema(self, *, bound: bool) -> dict[str, Any]:
        """The JSON Schema of its parameters; without `environment` when the server is bound to one."""
        (_, components) = msgspec.json.schema_components([self.takes])
        schema = cast("dict[str, Any]", components[self.takes.__name__])
        properties = {name: one for name, one in schema["properties"].items() if not (bound and name == "environment")}
        return {**{key: schema[key] for key in ("type", "required", "additionalProperties") if key in schema},
                "properties": properties}  # fmt: skip

    def command(self, given: object, before: list[str], *, bound: bool) -> list[str]:
        """The words after `homeport`. Raises UsageFault (code `tool-input`) for parameters that are not the tool's."""
        try:
            asked = msgspec.convert(given, self.takes)
        except msgspec.ValidationError as fault:
            raise UsageFault(f"{self.name}: {fault}", where="the tool's arguments", next="see the tool's inputSchema",
                             code="tool-input") from fault  # fmt: skip
        if bound and asked.environment is not None:
            raise UsageFault(f"{self.name}: this server is bound to one environment", where="environment",
                             next="leave it out", code="tool-input")  # fmt: skip
        json = [] if self.plain else ["--json"]
        return [*before, *_option("--environment", asked.environment), *json, *self.verb.split(), *asked.words()]


TOOLS = (
    Tool(verb="status", says="What runs and from which commit, what was edited on the host, what is on hold, blocked or "
         "tried, and what goes on now. Ask this first."),
    Tool(verb="plan", takes=Planned, says="What a deploy would do, service by service and why, and what it would refuse. "
         "Changes nothing."),
    Tool(verb="deploy", takes=Deployed, changes=True, says="Bring the environment to a commit of its branch: build, "
         "migrate, restart, verify; rolled back when that fails. Waits until the end and answers once. Refused (exit 3) "
         "when somebody edited the host: read `drift` and `adopt` the edits, or ask a person."),
    Tool(verb="check", at_checkout=True, says="What is wrong with this checkout's homeport.toml, with line and key."),
    Tool(verb="try", takes=Tried, at_checkout=True, changes=True, says="Make this checkout live as it is, uncommitted "
         "files included, where the environment allows it. Waits until the end."),
    Tool(verb="rollback", takes=Returned, changes=True, destroys=True, says="Go back to an earlier deploy or commit; the "
         "commit that is left is blocked."),
    Tool(verb="rebuild", takes=OnSomeServices, changes=True, says="Build and restart what was edited on the host, as it "
         "lies there; the edit stays an edit until it is adopted."),
    Tool(verb="restart", takes=OnSomeServices, changes=True, says="Restart services and verify them."),
    Tool(verb="cancel", takes=OfDeploy, changes=True, destroys=True, says="Stop the running deploy and undo what it did."),
    Tool(verb="history", takes=Counted, says="Deploys, newest first."),
    Tool(verb="show", takes=OneDeploy, says="One deploy: what it did, stage by stage, and how it ended."),
    Tool(verb="logs", takes=Printed, plain=True, says="What a deploy or a service printed."),
    Tool(verb="drift", takes=OfServices, differs=True, says="Every path on the host that is not as homeport put it there."),
    Tool(verb="diff", takes=Compared, differs=True, says="The edits on the host as a unified diff."),
    Tool(verb="edits", takes=Ended, says="Edits on the host that are not settled yet, with their age and request."),
    Tool(verb="adopt", takes=Adopted, changes=True, says="Bring what was edited on the host back into git: one commit on "
         "a new branch from the freshly fetched base, pushed, and a pull request where a forge is configured. Nothing on "
         "the host changes."),
    Tool(verb="accept", takes=Accepted, changes=True, says="Record an edit as known until a day; it no longer refuses a "
         "deploy."),
    Tool(verb="discard", takes=Discarded, changes=True, destroys=True, says="Put edited paths back to what homeport put "
         "there; their bytes are saved first (`rescue_list`)."),
    Tool(verb="rescue list", says="Bytes that were live and were saved before they were replaced."),
    Tool(verb="rules", takes=Explained, says="The rules in force here, or which of them decides about an action."),
)  # fmt: skip
NAMED = {tool.name: tool for tool in TOOLS}


def _option(name: str, value: str | None) -> list[str]:
    """One word, so that no value is taken for an option."""
    return [] if value is None else [f"{name}={value}"]


def _placed(value: str | None) -> list[str]:
    return ["--"] if value is None else ["--", value]
