"""How every command declares itself: one help style, examples at the end."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line the way every other error is reported; exit status 2, of run and exec Docker's 125."""

    def error(self, message: str) -> NoReturn:
        status = 125 if self.prog in ("migrate run", "migrate exec") else 2
        self.exit(status, f"error: {message}\nhint: {self.prog} --help\n")


def command(
    subparsers: Subparsers,
    name: str,
    *,
    help: str,
    examples: str,
    usage: str | None = None,
    short_help: bool = True,
    aliases: Sequence[str] = (),
) -> argparse.ArgumentParser:
    """Add the parser of one command; `help` is its line in the list of commands and the head of its own page. Without `short_help`
    it adds --help itself, where -h means something else.
    """
    return subparsers.add_parser(
        name,
        aliases=aliases,
        help=help,
        usage=usage,
        add_help=short_help,
        description=help[0].upper() + help[1:] + ".",
        epilog="examples:\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def rest(argv: list[str]) -> list[str]:
    """What follows the last named argument: a command line for the container; a leading `--` is only a separator."""
    return argv[1:] if argv[:1] == ["--"] else argv
