"""Verbs of the way back: adopt, accept, edits."""

from __future__ import annotations

from functools import partial

import click

from homeport.cli.confirming import acting, confirm_options
from homeport.cli.options import Options, pass_options
from homeport.cli.questions import can_ask, choose
from homeport.decide.adopting import Choice, Hunk
from homeport.model.errors import Refused, UsageFault
from homeport.model.paths import printable


@click.command()
@click.argument("words", nargs=-1, metavar="[SERVICE] [PATH]...")
@click.option("--patch", is_flag=True, help="Ask for every change; needs a terminal.")
@click.option("--branch", metavar="NAME", help="The new branch; default: homeport/adopt-DATE-COMMIT.")
@click.option("-m", "--message", metavar="TEXT", help="The commit message; trailers are added.")
@click.option("--merge", is_flag=True, help="Merge the request at once (squash, delete the branch); needs [forge].")
@click.option("--allow-secret", metavar="PATH", multiple=True, help="Adopt this path although it looks like a secret.")
@click.option("--foreign", is_flag=True, help="Also what another deployer wrote.")
@confirm_options
@pass_options
def adopt(options: Options, words: tuple[str, ...], patch: bool, branch: str | None, message: str | None, merge: bool,
          allow_secret: tuple[str, ...], foreign: bool, confirm: tuple[str, ...], because: str) -> None:  # fmt: skip
    """Bring what was edited on the host back into git: one commit, on a new branch from the freshly fetched base.

    Nothing on the host changes, and no checkout is touched. PATH is as in the repository, as in the live folder, or
    absolute; without one everything that was edited is taken.

    \b
    Example:
      homeport adopt
      homeport adopt api api/server.js --message "Longer timeout"
      homeport adopt --patch
    """
    from homeport.cli.show import edits as show
    from homeport.flow import adopting, requesting
    from homeport.wiring import identity, person

    if patch and not can_ask(options):
        raise Refused("--patch asks questions, and there is no terminal to ask on", where="--patch",
                      next="homeport adopt PATH... (whole files)", code="no-terminal")  # fmt: skip
    who = identity(options.folder)
    if who is None:
        raise UsageFault("it is not known whose commit it is", where="git config user.name, user.email", code="no-identity",
                         next="git config user.name NAME && git config user.email ADDRESS (in the checkout), or set "
                              "GIT_AUTHOR_NAME and GIT_AUTHOR_EMAIL")  # fmt: skip
    with options.site(recover=True) as site:
        wish = requesting.Wish(branch=branch, message=message, merge=merge, foreign=foreign, allow_secret=allow_secret,
                             by=person())  # fmt: skip
        ask = partial(_ask, options) if patch else None
        said = acting(options, site, confirm, because, lambda its: adopting.adopt(its, words, wish, who, ask))
    options.tell(said, lambda color: show.adopted(said, color=color))


def _ask(options: Options, path: str, what: str, told: str, pieces: list[Hunk] | None) -> Choice:
    """Asks the person, change by change."""
    meaning = "y: adopt it, n: leave it, q: leave it and all that follow"
    if pieces is None:
        said = choose(options, f"{printable(path)}: {what} the whole file?", "ynq", meaning, told)
        return Choice(whole=said == "y", stop=said == "q")
    chosen: list[Hunk] = []
    for number, hunk in enumerate(pieces, 1):
        question = f"{printable(path)}: adopt this change ({number} of {len(pieces)})?"
        shown = f"{told}, with any of these changes\n{hunk.text}" if told and number == 1 else hunk.text
        said = choose(options, question, "ynq", meaning, shown)
        if said == "q":
            return Choice(chosen=tuple(chosen), stop=True)
        if said == "y":
            chosen.append(hunk)
    return Choice(chosen=tuple(chosen))


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--because", metavar="REASON", required=True, help="Why it may stay; shown wherever the edit is.")
@click.option("--until", metavar="WHEN", required=True, help="A duration such as 7d, or a date such as 2030-01-31.")
@pass_options
def accept(options: Options, paths: tuple[str, ...], because: str, until: str) -> None:
    """Record an edit as known, until a day. It no longer refuses a deploy, unless the commit changes the same path.

    It holds for the bytes that are there now: another edit of the path has to be decided about anew.

    \b
    Example:
      homeport accept api/limits.json --because "load test" --until 7d
    """
    from homeport.cli.show import answers
    from homeport.flow.editing import accept as record
    from homeport.wiring import person

    with options.site(recover=True) as site:
        said = record(site, paths, because, until, person())
    options.tell(said, lambda _: answers.accepted(said))


@click.command()
@click.option("--all", "whole", is_flag=True, help="Also those that ended.")
@pass_options
def edits(options: Options, whole: bool) -> None:
    """List what was edited on the host and is not settled yet: open, accepted, adopted or merged.

    An edit is closed by itself once the live folder, what was deployed and git agree on it.

    \b
    Example:
      homeport edits
      homeport edits --all
    """
    from homeport.cli.show import edits as show
    from homeport.flow.editing import edits_of

    with options.site(recover=True) as site:
        said = edits_of(site, whole)
    options.tell(said, lambda color: show.edits(said, color=color))
