"""Go's text/template, as far as command lines of containers use it: parse once, run on mappings, lists and plain values.

Fields and variables with chains of names, pipelines, parentheses, literals; if, else if, with, range and end; comments and the
trimming of `{{-` and `-}}`; the functions of FUNCTIONS. Not there: define, template, block, break, continue. A name is looked up as
given, then without regard to case and underscores. Values are written as Go does: [a b], map[k:v], true, <no value>.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from migrate.cli.free import Free

NO_VALUE = "<no value>"
_ACTION = re.compile(r"(?s)\{\{(-\s)?(.*?)(\s-)?\}\}")
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*"|`[^`]*`)|(?P<number>-?\d+(?:\.\d+)?)|(?P<dots>\.[\w.]*)|(?P<variable>\$\w*)"""
    r"""|(?P<word>[A-Za-z_]\w*)|(?P<sign>:=|[()|,=]))"""
)


class TemplateError(ValueError):
    """Of the template, or of a field that what it is run on does not have."""


class Heading(str):
    """What a template is run on for its line of headings: every field of it is one, `known` or its name in capitals."""

    known: Mapping[str, str]

    def __new__(cls, text: str, known: Mapping[str, str]) -> Heading:
        made = super().__new__(cls, text)
        made.known = known
        return made

    def of(self, name: str) -> Heading:
        return Heading(self.known.get(name, name.upper()), self.known)


@dataclass
class _Pipe:
    """`$a, $b := command | command`; a command is a list of operands, an operand (kind, value, names after it)."""

    commands: list[list[tuple[str, Any, list[str]]]]
    names: list[str] = field(default_factory=list)


@dataclass
class _Block:
    """{{word pipe}} body {{else}} other {{end}}."""

    word: str
    pipe: _Pipe
    body: list[Any] = field(default_factory=list)
    other: list[Any] = field(default_factory=list)


class Template:
    """Parsed. Raises TemplateError."""

    def __init__(self, text: str) -> None:
        self._nodes = _Parser(_split(text)).parse()

    def run(self, data: Any) -> str:
        """The text for `data`. Raises TemplateError."""
        return "".join(_run(self._nodes, data, {"$": data}))


# ---------------------------------------------------------------- text to nodes


def _split(text: str) -> list[tuple[bool, str]]:
    """(is an action, its text), with white space trimmed as asked."""
    parts: list[tuple[bool, str]] = []
    position, trims = 0, False
    for found in [*_ACTION.finditer(text), None]:
        plain = text[position : found.start() if found else len(text)]
        plain = plain.lstrip() if trims else plain
        if not found:
            if "{{" in plain:
                raise TemplateError(f"unclosed action in {plain!r}")
            parts.append((False, plain))
            break
        parts.append((False, plain.rstrip() if found[1] else plain))
        if not re.fullmatch(r"(?s)\s*/\*.*\*/\s*", found[2]):
            parts.append((True, found[2].strip()))
        position, trims = found.end(), bool(found[3])
    return parts


class _Parser:
    """Nodes are texts, pipes and blocks."""

    def __init__(self, parts: Iterable[tuple[bool, str]]) -> None:
        self._parts = list(parts)
        self._at = 0

    def parse(self) -> list[Any]:
        nodes, ended = self._until()
        if ended:
            raise TemplateError(f"unexpected {{{{{ended}}}}}")
        return nodes

    def _until(self) -> tuple[list[Any], str]:
        """Up to {{end}}, {{else ...}} or the end of all; and which."""
        nodes: list[Any] = []
        while self._at < len(self._parts):
            is_action, text = self._parts[self._at]
            self._at += 1
            word = text.split(None, 1)[0] if text.split() else ""
            if not is_action:
                nodes.append(text)
            elif word in ("end", "else"):
                return nodes, text
            elif word in ("if", "with", "range"):
                nodes.append(self._block(word, text[len(word) :]))
            elif word in ("define", "template", "block", "break", "continue"):
                raise TemplateError(f"{{{{{word}}}}} is not supported")
            else:
                nodes.append(_Tokens(text).pipe())
        return nodes, ""

    def _block(self, word: str, text: str) -> _Block:
        block = _Block(word, _Tokens(text).pipe())
        block.body, ended = self._until()
        rest = ended.removeprefix("else").strip()
        if ended.startswith("else") and rest:  # {{else if x}}: a block of its own that the same {{end}} closes
            inner = rest.split(None, 1)[0]
            if inner not in ("if", "with"):
                raise TemplateError(f"unexpected {{{{{ended}}}}}")
            block.other = [self._block(inner, rest[len(inner) :])]
            return block
        if ended.startswith("else"):
            block.other, ended = self._until()
        if ended != "end":
            raise TemplateError(f"{{{{{word}}}}} without {{{{end}}}}")
        return block


class _Tokens:
    """Of one action."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str]] = []
        position = 0
        while text[position:].strip():
            found = _TOKEN.match(text, position)
            if not found:
                raise TemplateError(f"{{{{{text.strip()}}}}} is not understood at {text[position:].strip()!r}")
            # A field right after something is a part of it, with a space before it is an operand.
            kind = found.lastgroup or ""
            if kind == "dots" and self._tokens and found.start("dots") == position:
                kind = "chain"
            self._tokens.append((kind, found[kind if kind != "chain" else "dots"]))
            position = found.end()

    def pipe(self) -> _Pipe:
        pipe = self._pipe()
        if self._tokens:
            raise TemplateError(f"{{{{{self._text.strip()}}}}} is not understood at {self._tokens[0][1]!r}")
        return pipe

    def _pipe(self) -> _Pipe:
        names: list[str] = []
        assign = next((text for kind, text in self._tokens if kind == "sign" and text in (":=", "=")), "")
        if assign and self._tokens[0][0] == "variable":
            while self._tokens[0][1] != assign:
                kind, text = self._tokens.pop(0)
                if kind == "variable":
                    names.append(text)
                elif text != ",":
                    raise TemplateError(f"{{{{{self._text.strip()}}}}} is not understood at {text!r}")
            self._tokens.pop(0)
        commands = [self._command()]
        while self._tokens and self._tokens[0] == ("sign", "|"):
            self._tokens.pop(0)
            commands.append(self._command())
        return _Pipe(commands, names)

    def _command(self) -> list[tuple[str, Any, list[str]]]:
        operands: list[tuple[str, Any, list[str]]] = []
        while self._tokens and self._tokens[0] not in (("sign", "|"), ("sign", ")")):
            operands.append(self._operand())
        if not operands:
            raise TemplateError(f"{{{{{self._text.strip()}}}}}: a value is missing")
        return operands

    def _operand(self) -> tuple[str, Any, list[str]]:
        kind, text = self._tokens.pop(0)
        value: Any = text
        if kind == "string":
            kind, value = "literal", text[1:-1] if text[0] == "`" else _unquote(text)
        elif kind == "number":
            kind, value = "literal", float(text) if "." in text else int(text)
        elif kind == "word" and text in ("true", "false", "nil"):
            kind, value = "literal", {"true": True, "false": False, "nil": None}[text]
        elif kind == "word" and text not in FUNCTIONS:
            raise TemplateError(f"there is no function {text!r}; there are {', '.join(sorted(FUNCTIONS))}")
        elif kind == "dots":
            return ("dot", None, _names(text))
        elif text == "(":
            kind, value = "paren", self._pipe()
            if not self._tokens or self._tokens.pop(0) != ("sign", ")"):
                raise TemplateError(f"{{{{{self._text.strip()}}}}}: a ) is missing")
        elif kind in ("sign", "chain"):
            raise TemplateError(f"{{{{{self._text.strip()}}}}} is not understood at {text!r}")
        names: list[str] = []
        while self._tokens and self._tokens[0][0] == "chain":
            names += _names(self._tokens.pop(0)[1])
        return (kind, value, names)


def _names(dots: str) -> list[str]:
    names = dots.split(".")[1:]
    if len(names) > 1 and "" in names:
        raise TemplateError(f"{dots!r} is no field")
    return [name for name in names if name]


def _unquote(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError as exc:
        raise TemplateError(f"{text} is no string") from exc


# ---------------------------------------------------------------- nodes to text


def _run(nodes: Sequence[Any], dot: Any, variables: dict[str, Any]) -> Iterable[str]:
    for node in nodes:
        if isinstance(node, str):
            yield node
        elif isinstance(node, _Pipe):
            value = _evaluate(node, dot, variables)
            if node.names:
                variables[node.names[0]] = value
            else:
                yield text_of(value)
        else:
            yield from _run_block(node, dot, variables)


def _run_block(block: _Block, dot: Any, variables: dict[str, Any]) -> Iterable[str]:
    value = _evaluate(block.pipe, dot, variables)
    inner = variables if block.word == "if" else dict(variables)
    if not truth(value):
        yield from _run(block.other, dot, inner)
    elif block.word == "range" and isinstance(value, Heading):
        yield from _run(block.body, value, inner)
    elif block.word == "range":
        if isinstance(value, int):
            value = list(range(value))
        if not isinstance(value, Mapping | list | tuple):
            raise TemplateError(f"range cannot go over {text_of(value)!r}")
        pairs = [(key, value[key]) for key in sorted(value)] if isinstance(value, Mapping) else list(enumerate(value))
        for key, one in pairs:
            inner.update(zip(block.pipe.names, (key, one) if len(block.pipe.names) > 1 else (one,), strict=False))
            yield from _run(block.body, one, inner)
    else:
        if block.pipe.names:
            inner[block.pipe.names[0]] = value
        yield from _run(block.body, value if block.word == "with" else dot, inner)


def _evaluate(pipe: _Pipe, dot: Any, variables: dict[str, Any]) -> Any:
    value: Any = None
    for number, (first, *others) in enumerate(pipe.commands):
        arguments = [_operand(one, dot, variables) for one in others] + ([value] if number else [])
        if first[0] == "word":
            value = _chain(_call(first[1], arguments), first[2])
        elif arguments:  # {{.Label "key"}}: what would be a method in Go
            owner = _operand(first, dot, variables)
            if not isinstance(owner, Mapping | Heading) or len(arguments) != 1:
                raise TemplateError("only a function takes arguments")
            value = arguments[0] if isinstance(owner, Heading) else owner.get(arguments[0], "")
        else:
            value = _operand(first, dot, variables)
    return value


def _operand(operand: tuple[str, Any, list[str]], dot: Any, variables: dict[str, Any]) -> Any:
    kind, value, names = operand
    if kind == "dot":
        value = dot
    elif kind == "variable":
        if value not in variables:
            raise TemplateError(f"there is no variable {value}")
        value = variables[value]
    elif kind == "paren":
        value = _evaluate(value, dot, variables)
    elif kind == "word":
        value = _call(value, [])
    return _chain(value, names)


def _chain(value: Any, names: Sequence[str]) -> Any:
    for number, name in enumerate(names):
        value = _field(value, name, "." + ".".join(names[: number + 1]))
    return value


def _field(value: Any, name: str, path: str) -> Any:
    if isinstance(value, Heading):
        return value.of(name)
    if isinstance(value, Mapping):
        if name in value or isinstance(value, Free):
            return value.get(name, _Nothing())
        plain = name.lower().replace("_", "")
        for key, one in value.items():
            if key.lower().replace("_", "") == plain:
                return one
    if isinstance(value, _Nothing):
        return value
    known = ", ".join(sorted(value)) if isinstance(value, Mapping) else "none"
    raise TemplateError(f"there is no field {path!r}; fields are {known}")


class _Nothing:
    """What a key that is not there gives."""


def truth(value: Any) -> bool:
    """Go's: false, 0, nil and what is empty are not."""
    return bool(value) and not isinstance(value, _Nothing)


def text_of(value: Any) -> str:
    """As Go's fmt writes it with %v."""
    if isinstance(value, _Nothing) or value is None:
        return NO_VALUE
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{text_of(value[key])}' for key in sorted(value))}]"
    if isinstance(value, list | tuple):
        return f"[{' '.join(map(text_of, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


# ---------------------------------------------------------------- functions


def _call(name: str, arguments: list[Any]) -> Any:
    try:
        return FUNCTIONS[name](*arguments)
    except TemplateError:
        raise
    except (TypeError, ValueError, LookupError) as exc:
        shown = " ".join(map(text_of, arguments))
        raise TemplateError(f"{name} cannot work on {shown!r}: {exc}") from exc


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key, _Nothing())
        elif isinstance(value, list | tuple | str) and isinstance(key, int) and 0 <= key < len(value):
            value = value[key]
        elif not isinstance(value, _Nothing):
            raise TemplateError(f"index: there is no {text_of(key)!r} in {text_of(value)!r}")
    return value


def _json(value: Any) -> str:
    plain = None if isinstance(value, _Nothing) else value
    return json.dumps(plain, separators=(",", ":"), ensure_ascii=False)


def _equal(first: Any, *others: Any) -> bool:
    return any(first == other for other in others)


def _and(*values: Any) -> Any:
    return next((one for one in values if not truth(one)), values[-1])


def _or(*values: Any) -> Any:
    return next((one for one in values if truth(one)), values[-1])


def _printf(form: str, *values: Any) -> str:
    """%s %v %d %q %t %x %f with flags and widths; %v as Go writes values."""

    def one(found: re.Match[str]) -> str:
        if found[0] == "%%":
            return "%"
        value = next(given)
        if found[2] in "svt":
            return f"%{found[1]}s" % text_of(value)
        if found[2] == "q":
            return f"%{found[1]}s" % json.dumps(text_of(value), ensure_ascii=False)
        return str(f"%{found[1]}{found[2]}" % value)

    given = iter(values)
    try:
        return re.sub(r"%([-+ 0#]*\d*(?:\.\d+)?)([svtqdxXfgoe%])", one, form)
    except StopIteration:
        raise TemplateError(f"printf {form!r} has too few values") from None


def _slice(value: Any, start: int = 0, end: int | None = None) -> Any:
    return value[start : len(value) if end is None else end]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": _json,
    "upper": lambda value: text_of(value).upper(),
    "lower": lambda value: text_of(value).lower(),
    "title": lambda value: text_of(value).title(),
    "len": lambda value: 0 if value is None else len(value),
    "index": _index,
    "slice": _slice,
    "join": lambda values, separator: str(separator).join(map(text_of, values or ())),
    "split": lambda value, separator: str(value).split(separator),
    "pad": lambda value, before, after: " " * before + text_of(value) + " " * after if text_of(value) else "",
    "truncate": lambda value, length: text_of(value)[:length],
    "println": lambda *values: " ".join(map(text_of, values)) + "\n",
    "print": lambda *values: "".join(map(text_of, values)),
    "printf": _printf,
    "eq": _equal,
    "ne": lambda first, second: first != second,
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
    "not": lambda value: not truth(value),
    "and": _and,
    "or": _or,
}
