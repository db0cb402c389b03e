"""The text of Dockerfiles: forms that real ones have, and mistakes with the place where they are."""

from __future__ import annotations

import pytest

from agent.build.dockerfile import Dockerfile, DockerfileError, Instruction, parse, parse_trigger
from agent.errors import InvalidArgument

pytestmark = pytest.mark.unit

FLASK = """\
FROM debian:12
MAINTAINER x
RUN apt-get update && apt-get install -y python3-pip
RUN pip install --break-system-packages Flask
ADD server.py /srv/server.py
EXPOSE 5000
CMD python3 /srv/server.py
"""

NODE = """\
# syntax=docker/dockerfile:1.7
# check=skip=JSONArgsRecommended

ARG NODE=20
FROM node:${NODE}-alpine AS deps
WORKDIR /app
COPY --link package.json package-lock.json ./
RUN --mount=type=cache,target=/root/.npm,sharing=locked \\
    --mount=type=secret,id=npmrc,target=/root/.npmrc \\
    # a comment in the middle
    npm ci \\

    && npm cache verify

from deps as build
copy . .
run npm run build
FROM nginx:1.25
COPY --from=build --chown=101:101 --chmod=0644 /app/dist /usr/share/nginx/html
HEALTHCHECK --interval=30s --timeout=3s CMD wget -qO- http://localhost/ || exit 1
ENTRYPOINT ["nginx", "-g", "daemon off;"]
"""


def names(dockerfile: Dockerfile) -> list[str]:
    return [one.name for one in dockerfile.instructions]


def only(text: str) -> Instruction:
    """The instruction after FROM."""
    return parse("FROM scratch\n" + text).instructions[1]


def test_a_plain_file() -> None:
    """Each line is an instruction with its words; a shell form stays one word."""
    found = parse(FLASK)
    assert names(found) == ["FROM", "MAINTAINER", "RUN", "RUN", "ADD", "EXPOSE", "CMD"]
    assert found.instructions[2].args == ("apt-get update && apt-get install -y python3-pip",)
    assert found.instructions[4].args == ("server.py", "/srv/server.py")
    assert found.instructions[6].args == ("python3 /srv/server.py",)
    assert not found.instructions[6].json


def test_a_file_with_everything() -> None:
    """Directives, lower case, continuations with comments and empty lines, flags, exec forms; lines are the first ones."""
    found = parse(NODE)
    assert names(found) == [
        "ARG", "FROM", "WORKDIR", "COPY", "RUN", "FROM", "COPY", "RUN", "FROM", "COPY", "HEALTHCHECK", "ENTRYPOINT",
    ]  # fmt: skip
    run = found.instructions[4]
    assert run.flag_values("mount") == (
        "type=cache,target=/root/.npm,sharing=locked",
        "type=secret,id=npmrc,target=/root/.npmrc",
    )
    assert run.args == ("npm ci     && npm cache verify",)
    assert run.place.line == 8
    assert run.place.text.startswith("RUN --mount=type=cache")
    copy = found.instructions[9]
    assert (copy.flag("from"), copy.flag("chown"), copy.flag("chmod")) == ("build", "101:101", "0644")
    assert found.instructions[10].args == ("CMD", "wget -qO- http://localhost/ || exit 1")
    assert found.instructions[11].json
    assert any("Empty continuation line" in warning for warning in found.warnings)


def test_switches() -> None:
    """--link alone means true, and false may be said."""
    assert only("COPY --link a b").switch("link")
    assert not only("COPY --link=false a b").switch("link")
    assert not only("COPY a b").switch("link")
    with pytest.raises(DockerfileError, match="--link is true or false, not 'maybe'"):
        only("COPY --link=maybe a b").switch("link")


def test_the_escape_directive() -> None:
    """With a backtick as escape a backslash is a character."""
    found = parse("# escape=`\nFROM scratch\nCOPY a `\n  C:\\dir\\\n")
    assert found.escape == "`"
    assert found.instructions[1].args == ("a", "C:\\dir\\")


def test_a_directive_after_a_comment_is_a_comment() -> None:
    """Directives count only at the very top."""
    assert parse("# hello\n# escape=`\nFROM scratch\n").escape == "\\"


def test_windows_line_ends_and_a_byte_order_mark() -> None:
    """Files of Windows editors read like others."""
    found = parse("\ufeffFROM scratch\r\nENV A=1 \\\r\n  B=2\r\nRUN <<EOF\r\necho hi\r\nEOF\r\n")
    assert names(found) == ["FROM", "ENV", "RUN"]
    assert found.instructions[1].args == ("A", "1", "B", "2")


@pytest.mark.parametrize(
    ("line", "args"),
    [
        ("ENV A=1 B=2", ("A", "1", "B", "2")),
        ('ENV A="x y" B=x\\ y', ("A", '"x y"', "B", "x\\ y")),
        ("ENV A x y  z", ("A", "x y  z")),
        ("LABEL a.b=c 'd e'=f", ("a.b", "c", "'d e'", "f")),
        ("EXPOSE 80 443/tcp 8000-8010/udp", ("80", "443/tcp", "8000-8010/udp")),
        ('VOLUME ["/data", "/log"]', ("/data", "/log")),
        ("VOLUME /data /log", ("/data", "/log")),
        ('SHELL ["/bin/bash", "-c"]', ("/bin/bash", "-c")),
        ('CMD ["a", "b c"]', ("a", "b c")),
        ("CMD ['a', 'b']", ("['a', 'b']",)),  # single quotes are no JSON: the shell form
        ("CMD [ -f x ] && y", ("[ -f x ] && y",)),
        ("STOPSIGNAL SIGQUIT", ("SIGQUIT",)),
        ("WORKDIR a b", ("a b",)),
        ("USER app:app", ("app:app",)),
        ("ARG a b=c", ("a", "b=c")),
        ("ENTRYPOINT", ()),
        ("MAINTAINER A B <a@b>", ("A B <a@b>",)),
        ("HEALTHCHECK NONE", ("NONE",)),
        ('COPY ["a b", "/c d/"]', ("a b", "/c d/")),
        ("ONBUILD RUN  make", ("RUN  make",)),
    ],
)
def test_words_of_an_instruction(line: str, args: tuple[str, ...]) -> None:
    """Each instruction splits its own way, as Docker does."""
    assert only(line).args == args


def test_heredocs() -> None:
    """Bodies belong to their instruction, whatever they hold; quotes mean no expansion, a dash eats tabs."""
    found = parse("FROM scratch\nCOPY <<'ONE' <<-TWO /d/\nFROM $x\nONE\n\t\ttabbed $y\n\tTWO\nRUN echo\n")
    assert names(found) == ["FROM", "COPY", "RUN"]
    one, two = found.instructions[1].heredocs
    assert (one.name, one.content, one.expand) == ("ONE", "FROM $x\n", False)
    assert (two.name, two.content, two.expand) == ("TWO", "tabbed $y\n", True)
    assert found.instructions[2].place.line == 7


def test_a_heredoc_of_the_shell() -> None:
    """A here-document in the middle of a command line is found too."""
    (doc,) = only("RUN cat <<EOF > /x && ls\na\nEOF\n").heredocs
    assert doc.content == "a\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("FROM scratch\n\nRUNN x\n", 3, "unknown instruction: RUNN"),
        ("FROM a b\n", 1, "FROM takes an image"),
        ("FROM a IN b\n", 1, "FROM takes an image"),
        ("FROM scratch\nCOPY a\n", 2, "COPY takes at least one source"),
        ("FROM scratch\nCOPY --form=x a b\n", 2, "COPY has no flag --form"),
        ("FROM scratch\nWORKDIR --x=y /\n", 2, "WORKDIR has no flag --x"),
        ("FROM scratch\nCOPY --from a b\n", 2, "--from takes a value"),
        ("FROM scratch\nCOPY --chown=1 --chown=2 a b\n", 2, "--chown is given twice"),
        ("FROM scratch\nENV A\n", 2, "ENV must have two arguments"),
        ("FROM scratch\nENV A=1 B\n", 2, 'can\'t find = in "B"'),
        ("FROM scratch\nSHELL /bin/sh -c\n", 2, "SHELL takes the JSON form"),
        ("FROM scratch\nHEALTHCHECK\n", 2, "HEALTHCHECK takes CMD command, or NONE"),
        ("FROM scratch\nHEALTHCHECK CMD\n", 2, "HEALTHCHECK takes CMD command, or NONE"),
        ("FROM scratch\nHEALTHCHECK --interval=1s NONE\n", 2, "HEALTHCHECK NONE takes nothing more"),
        ("FROM scratch\nRUN <<EOF\necho\n", 2, "unterminated heredoc"),
        ("FROM scratch\nRUN []\n", 2, "RUN takes a command"),
        ("FROM scratch\nRUN\n", 2, "RUN takes an argument"),
        ("FROM scratch\nCMD [1]\n", 2, "Only strings are supported in JSON arrays"),
        ("FROM scratch\nONBUILD FROM x\n", 2, "ONBUILD cannot hold FROM"),
        ("FROM scratch\nONBUILD ONBUILD RUN x\n", 2, "ONBUILD cannot hold ONBUILD"),
        ("FROM scratch\nONBUILD WHAT x\n", 2, "unknown instruction: WHAT"),
        ("# escape=x\nFROM scratch\n", 1, "invalid escape token"),
    ],
)
def test_a_mistake_names_file_and_line(text: str, line: int, message: str) -> None:
    """The error begins with file:line, says what is wrong, and shows the line."""
    with pytest.raises(DockerfileError) as caught:
        parse(text, "sub/Dockerfile")
    assert caught.value.message.startswith(f"sub/Dockerfile:{line}: ")
    assert message in caught.value.message
    assert caught.value.detail == f"{line} | {text.splitlines()[line - 1]}"


def test_nothing_to_build() -> None:
    """A file of comments, or a huge one, is refused before anything else."""
    with pytest.raises(InvalidArgument, match="has no instruction"):
        parse("# nothing\n")
    with pytest.raises(InvalidArgument, match="at most"):
        parse("#" * (1 << 21))


def test_a_trigger_is_an_instruction() -> None:
    """What ONBUILD holds is read like a line of its own, with the escape of its file."""
    held = parse("# escape=`\nFROM scratch\nONBUILD COPY a C:\\\n").instructions[1]
    assert parse_trigger(held.args[0], "`", held.place).args == ("a", "C:\\")
