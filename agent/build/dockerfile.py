"""The text of a Dockerfile as a tuple of instructions, each knowing where it stands. Pure: no disk, no variables yet.

The grammar (continuations, comments, directives, JSON forms, heredocs, flags) is e2b-dockerfile-utils', a port of
BuildKit's parser; see docs/adr/0007. This module says which flags and how many words an instruction takes, so that a
mistake is found before anything is built.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from e2b_dockerfile_utils import (
    DockerfileInstruction,
    DockerfileSyntaxError,
    chomp_heredoc_content,
    parse_dockerfile_ast,
)

from agent.errors import InvalidArgument

MAX_BYTES = 1 << 20

# Flags an instruction may have; "" marks those that may be given without a value.
_FLAGS: dict[str, dict[str, bool]] = {
    "FROM": {"platform": False},
    "RUN": {"mount": False, "network": False, "security": False},
    "COPY": {"from": False, "chown": False, "chmod": False, "link": True, "parents": True, "exclude": False},
    "ADD": {"chown": False, "chmod": False, "link": True, "checksum": False, "keep-git-dir": True, "unpack": True, "exclude": False},
    "HEALTHCHECK": {"interval": False, "timeout": False, "start-period": False, "start-interval": False, "retries": False},
}  # fmt: skip
_REPEATABLE = {"mount", "exclude"}
_NO_TRIGGER = {"ONBUILD", "FROM", "MAINTAINER"}


class DockerfileError(InvalidArgument):
    """The Dockerfile is wrong: the message names file and line, `detail` shows the line."""

    code = "build.dockerfile"

    def __init__(self, place: Place, what: str, *, hint: str = "") -> None:
        super().__init__(f"{place}: {what}", hint=hint, detail=place.shown)
        self.place = place


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an instruction begins. `text`: its first line as it was written."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def shown(self) -> str:
        return f"{self.line} | {self.text}"


@dataclass(frozen=True, kw_only=True)
class Heredoc:
    """A here-document; `content` as it counts (leading tabs gone for `<<-`). `expand`: its word was not quoted."""

    name: str
    content: str
    expand: bool


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction. `text`: all of it on one line, for people. `args`: words with quotes and variables still in
    them (ENV, LABEL: name, value, name, value ...); of a shell form, one. `json`: the exec form.
    """

    place: Place
    name: str
    text: str
    flags: tuple[tuple[str, str], ...] = ()
    args: tuple[str, ...] = ()
    json: bool = False
    heredocs: tuple[Heredoc, ...] = ()

    def flag(self, name: str) -> str:
        """Its value, "" where it was not given."""
        return next((value for key, value in self.flags if key == name), "")

    def flag_values(self, name: str) -> tuple[str, ...]:
        return tuple(value for key, value in self.flags if key == name)

    def switch(self, name: str) -> bool:
        """Of `--link`, `--link=true`, `--link=false`. Raises DockerfileError for another value."""
        value = next((value for key, value in self.flags if key == name), "false").lower()
        if value not in ("true", "false"):
            raise DockerfileError(self.place, f"--{name} is true or false, not {value!r}")
        return value == "true"


@dataclass(frozen=True, kw_only=True)
class Dockerfile:
    """`warnings`: what BuildKit would complain about without refusing it."""

    escape: str
    instructions: tuple[Instruction, ...]
    warnings: tuple[str, ...] = ()


def parse(text: str, file: str = "Dockerfile") -> Dockerfile:
    """Raises DockerfileError naming file and line."""
    if len(text) > MAX_BYTES:
        raise InvalidArgument(f"{file} has {len(text)} characters, at most {MAX_BYTES} are read")
    lines = text.removeprefix("\ufeff").split("\n")
    try:
        ast = parse_dockerfile_ast(text)
    except DockerfileSyntaxError as exc:
        line = exc.line or 1
        place = Place(file=file, line=line, text=_line(lines, line))
        what = str(exc).partition(": ")[2]
        hint = "the instructions are FROM, RUN, COPY, ADD, ENV, ..." if "unknown instruction" in what else ""
        raise DockerfileError(place, what, hint=hint) from exc
    instructions = tuple(
        _instruction(one, Place(file=file, line=one.start_line, text=_line(lines, one.start_line)), ast.escape_token)
        for one in ast.instructions
    )
    if not instructions:
        raise InvalidArgument(f"{file} has no instruction", hint="begin with FROM")
    warnings = tuple(f"{file}:{warning.line}: {warning.message}" for warning in ast.warnings)
    return Dockerfile(escape=ast.escape_token, instructions=instructions, warnings=warnings)


def parse_trigger(text: str, escape: str, place: Place) -> Instruction:
    """The instruction that ONBUILD holds, as if it stood at `place`. Heredocs in it are the whole text's."""
    head = f"# escape={escape}\n" if escape != "\\" else ""
    try:
        parsed = parse_dockerfile_ast(head + text)
    except DockerfileSyntaxError as exc:
        raise DockerfileError(place, f"ONBUILD {text}: {str(exc).partition(': ')[2]}") from exc
    if len(parsed.instructions) != 1:
        raise DockerfileError(place, f"ONBUILD takes one instruction, not {text!r}")
    return _instruction(parsed.instructions[0], place, escape)


def _instruction(raw: DockerfileInstruction, place: Place, escape: str) -> Instruction:
    args = list(raw.args)
    if raw.name in ("ENV", "LABEL"):
        args = [word for number, word in enumerate(args) if number % 3 != 2]  # without the delimiters
    elif raw.name == "ONBUILD":
        args = [_after_word(raw.original)]
    one = Instruction(
        place=place,
        name=raw.name,
        text=" ".join(raw.original.split()),
        flags=tuple(_flags(raw, place)),
        args=tuple(args),
        json=raw.json,
        heredocs=tuple(
            Heredoc(
                name=doc.name,
                content=chomp_heredoc_content(doc.content) if doc.chomp else doc.content,
                expand=doc.expand,
            )
            for doc in raw.heredocs
        ),
    )
    _check(one)
    if one.name == "ONBUILD":
        word = one.args[0].split(None, 1)[0].upper()
        if word in _NO_TRIGGER:
            raise DockerfileError(place, f"ONBUILD cannot hold {word}")
        parse_trigger(one.args[0], escape, place)
    return one


def _flags(raw: DockerfileInstruction, place: Place) -> Iterator[tuple[str, str]]:
    known = _FLAGS.get(raw.name, {})
    seen: set[str] = set()
    for flag in raw.flags:
        name, equals, value = flag.removeprefix("--").partition("=")
        if name not in known:
            takes = f"it takes {', '.join('--' + one for one in known)}" if known else "it takes no flags"
            raise DockerfileError(place, f"{raw.name} has no flag --{name}", hint=takes)
        if not equals and not known[name]:
            raise DockerfileError(place, f"--{name} takes a value", hint=f"--{name}=...")
        if name in seen and name not in _REPEATABLE:
            raise DockerfileError(place, f"--{name} is given twice")
        seen.add(name)
        yield name, value if equals else "true"


def _check(one: Instruction) -> None:
    """How many words it takes."""
    count = len(one.args)
    if one.name == "FROM":
        if count not in (1, 3) or (count == 3 and one.args[1].upper() != "AS"):
            raise DockerfileError(one.place, "FROM takes an image, or: FROM image AS name")
    elif one.name in ("COPY", "ADD"):
        if count < 2:
            raise DockerfileError(one.place, f"{one.name} takes at least one source and a destination")
    elif one.name == "SHELL":
        if not one.json or not count:
            raise DockerfileError(one.place, "SHELL takes the JSON form", hint='SHELL ["/bin/bash", "-c"]')
    elif one.name == "HEALTHCHECK":
        kind = one.args[0].upper() if count else ""
        if kind not in ("CMD", "NONE") or (kind == "CMD" and count < 2):
            raise DockerfileError(one.place, "HEALTHCHECK takes CMD command, or NONE")
        if kind == "NONE" and (count > 1 or one.flags):
            raise DockerfileError(one.place, "HEALTHCHECK NONE takes nothing more")
    elif one.name in ("CMD", "ENTRYPOINT"):
        return  # without words they clear what the base says
    elif one.name == "RUN" and one.json and not count:
        raise DockerfileError(one.place, "RUN takes a command")
    elif not count or not any(word.strip() for word in one.args):
        raise DockerfileError(one.place, f"{one.name} takes an argument")


def _after_word(original: str) -> str:
    parts = original.strip().split(None, 1)
    return parts[1] if len(parts) > 1 else ""


def _line(lines: list[str], number: int) -> str:
    return lines[number - 1].strip() if 0 < number <= len(lines) else ""
