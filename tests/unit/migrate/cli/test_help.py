"""Every command's own page and its completion: examples that its parser takes, choices that the shell offers."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from migrate.cli import completion
from migrate.cli.main import MODULES
from migrate.cli.parsers import Parser

pytestmark = pytest.mark.unit


def _commands() -> Iterator[tuple[list[str], argparse.ArgumentParser]]:
    """Words and parser of each command and each verb of one."""
    for name, module in MODULES.items():
        if name == "__complete":
            continue
        root = Parser(prog="migrate", add_help=False)
        subparsers: Any = root.add_subparsers(dest="command", parser_class=Parser)
        importlib.import_module(f"migrate.cli.{module}").add_parser(subparsers)
        yield from _below([name], subparsers.choices[name])


def _below(words: list[str], parser: argparse.ArgumentParser) -> Iterator[tuple[list[str], argparse.ArgumentParser]]:
    yield words, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, inner in action.choices.items():
                yield from _below([*words, verb], inner)


COMMANDS = [pytest.param(words, parser, id=" ".join(words)) for words, parser in _commands()]


@pytest.mark.parametrize(("words", "parser"), COMMANDS)
def test_each_command_ends_its_help_with_an_example(words: list[str], parser: argparse.ArgumentParser) -> None:
    """One that can be typed."""
    assert re.match(r"(?s)examples:\n  .*migrate ", parser.epilog or ""), f"migrate {' '.join(words)} --help shows none"


@pytest.mark.parametrize(("words", "parser"), COMMANDS)
def test_each_option_says_what_it_does(words: list[str], parser: argparse.ArgumentParser) -> None:
    """But for those whose choices say it, and --format, which every list has."""
    silent = [
        "/".join(action.option_strings)
        for action in parser._actions
        if action.option_strings and not action.help and not action.choices
    ]
    assert silent == [], f"migrate {' '.join(words)} does not say what these do"


@pytest.mark.parametrize(("words", "parser"), COMMANDS)
def test_each_option_is_completed(words: list[str], parser: argparse.ArgumentParser) -> None:
    """By its long name; after it, each of its choices."""
    offered = completion.candidates([*words, "--"])
    for action in parser._actions:
        for text in action.option_strings:
            assert text in offered or not text.startswith("--"), f"{text} is not completed"
            if action.choices is not None:
                assert completion.candidates([*words, text, ""]) == [str(choice) for choice in action.choices], text


@pytest.mark.parametrize(
    "words",
    ["move web1 --to host2 --compress ", "move web1 --mode ", "move web1 --on-timeout ", "migrations show x --format "],
)
def test_what_a_move_takes_is_completed(words: str) -> None:
    """The options whose values come from a short list."""
    assert completion.candidates(words.split(" ")), words


@pytest.mark.parametrize(("words", "parser"), COMMANDS)
def test_examples_are_taken_by_their_parsers(words: list[str], parser: argparse.ArgumentParser) -> None:
    """Those that begin with the command itself: an option that was renamed would stay in them unseen."""
    for line in (parser.epilog or "").removeprefix("examples:\n").splitlines():
        # Without a remark behind it, without what the shell does; what $(...) gives is a name.
        text = re.split(r"  | \| | && | \|\| | [<>] ", re.sub(r"\$\(.*?\)", "name", line.strip()))[0]
        given = shlex.split(text)
        if given[: len(words) + 1] != ["migrate", *words]:
            continue
        try:
            parser.parse_known_args(given[len(words) + 1 :])
        except SystemExit as exc:
            pytest.fail(f"{line.strip()!r}: exit status {exc.code}")
        _, unknown = parser.parse_known_args(given[len(words) + 1 :])
        assert unknown == [], line.strip()
