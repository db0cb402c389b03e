"""`migrate completion SHELL`, and `migrate __complete`, which the scripts call.

One place knows what can follow what, for all shells.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from migrate.cli.parsers import Parser, command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers

SCRIPTS = {
    "bash": r"""_migrate() {
    local IFS=$'\n' word=${COMP_WORDS[COMP_CWORD]}
    COMPREPLY=($(compgen -W "$(migrate __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" -- "$word"))
}
complete -o default -F _migrate migrate
""",
    "zsh": r"""#compdef migrate
_migrate() {
    local -a found
    found=("${(@f)$(migrate __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    [[ -n $found[1] ]] && compadd -a found || _files
}
compdef _migrate migrate
""",
    "fish": r"""function __migrate_complete
    migrate __complete -- (commandline -opc)[2..] (commandline -ct) 2>/dev/null
end
complete -c migrate -f -a '(__migrate_complete)'
for name in --env-file
    complete -c migrate -l (string sub -s 3 -- $name) -rF
end
complete -c migrate -n '__fish_seen_subcommand_from import build cp export' -F
""",
}
# What a positional argument or an option's value names.
KINDS = {
    "CONTAINER": "containers",
    "SRC": "paths",
    "DEST": "paths",
    "IMAGE": "images",
    "HOST": "hosts",
    "VOLUME": "volumes",
    "ID": "migrations",
    "EVACUATION": "evacuations",
    "SCHEDULE": "schedules",
    "POLICY": "policies",
    "containers": "containers",
    "container": "containers",
    "image": "images",
    "images": "images",
    "host": "hosts",
    "hosts": "hosts",
    "to": "hosts",
    "id": "migrations",
}


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "completion",
        help="print the completion script of a shell; it completes names of containers, hosts and images too",
        examples="source <(migrate completion bash)\n"
        "migrate completion bash > /etc/bash_completion.d/migrate\n"
        "migrate completion fish > ~/.config/fish/completions/migrate.fish",
    )
    parser.add_argument("shell", choices=tuple(SCRIPTS))
    hidden = subparsers.add_parser("__complete", add_help=False)
    hidden.add_argument("words", nargs=argparse.REMAINDER)


def run(args: argparse.Namespace) -> int:
    if args.command == "completion":
        print(SCRIPTS[args.shell], end="")
        return 0
    words = args.words[1:] if args.words[:1] == ["--"] else args.words
    for candidate in candidates(words, args.coordinator):
        print(candidate)
    return 0


def candidates(words: Sequence[str], coordinator: str | None = None) -> list[str]:
    """What can stand in place of the last of `words` (the ones after `migrate`), filtered by what is typed of it."""
    from migrate.cli.main import GROUPED, GROUPS, MODULES

    *before, typed = words or [""]
    grouped = GROUPED.get(before[0], {}) if before else {}
    if len(before) > 1 and before[1] in grouped:
        before, grouped = [grouped[before[1]], *before[2:]], {}
    if not before:
        found = [name for _, commands in GROUPS for name, _, _ in commands]
    elif before[0] not in MODULES:
        found = []
    else:
        parser = _parser(before[0], MODULES[before[0]])
        found = _after(parser, before[1:], typed, coordinator) if parser else []
        found += [verb for verb in grouped if len(before) == 1 and verb not in found]
    return [one for one in found if one.startswith(typed)]


def _parser(name: str, module: str) -> argparse.ArgumentParser | None:
    root = Parser(prog="migrate", add_help=False)
    subparsers: Any = root.add_subparsers(dest="command", parser_class=Parser)
    importlib.import_module(f"migrate.cli.{module}").add_parser(subparsers)
    parser: argparse.ArgumentParser | None = subparsers.choices.get(name)
    return parser


def _after(parser: argparse.ArgumentParser, before: Sequence[str], typed: str, coordinator: str | None) -> list[str]:
    """Walk over the words before, then say what can come next."""
    options = {text: action for action in parser._actions for text in action.option_strings}
    positionals = [action for action in parser._actions if not action.option_strings]
    words = list(before)
    position = 0
    while words:
        word = words.pop(0)
        option = options.get(word)
        if option is not None and option.nargs != 0:
            if not words:
                return _values(option, coordinator)
            words.pop(0)
        elif not word.startswith("-") and position < len(positionals):
            action = positionals[position]
            if isinstance(action, argparse._SubParsersAction):
                inner = action.choices.get(word)
                return _after(inner, words, typed, coordinator) if inner else []
            if action.nargs not in ("+", "*", argparse.REMAINDER):
                position += 1
    if typed.startswith("-"):
        return [text for text, action in options.items() if text.startswith("--") or len(typed) == 1]
    return _values(positionals[position], coordinator) if position < len(positionals) else []


def _values(action: argparse.Action, coordinator: str | None) -> list[str]:
    if action.choices is not None:
        return [str(choice) for choice in action.choices]
    if (
        isinstance(action.metavar, str) and "|" in action.metavar
    ):  # "abort|pause": choices that are checked as they are read
        return action.metavar.split("|")
    kind = KINDS.get(action.metavar if isinstance(action.metavar, str) else "") or KINDS.get(action.dest)
    return names(kind, coordinator) if kind else []


def names(kind: str, coordinator: str | None) -> list[str]:
    """Names of "containers" ("paths": with a colon), "hosts", "images", "migrations", "evacuations", "schedules" or "policies";
    none where it does not answer.
    """
    from migrate.client import Client
    from migrate.errors import MigrateError

    try:
        with Client(coordinator) as client:
            if kind == "paths":
                return sorted(f"{one.name}:" for one in client.containers(all=True))
            if kind == "containers":
                return sorted(one.name for one in client.containers(all=True))
            if kind == "volumes":
                return sorted({one.name for one in client.volumes()})
            if kind == "hosts":
                return [host.name for host in client.hosts(facts=False)]
            if kind == "images":
                return sorted({image.name for image in client.images()})
            if kind == "schedules":
                return [one.job.name for one in client.schedules()]
            if kind == "policies":
                return [one.name for one in client.policies()]
            if kind == "evacuations":
                return [one.id[:12] for one in client.evacuations(limit=20)]
            return [record.id[:12] for record in client.migrations(limit=20)]
    except MigrateError:
        return []
