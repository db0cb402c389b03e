"""Stages, what they are made from, which are needed, and the variables of FROM lines."""

from __future__ import annotations

import pytest

from agent.build import plan as plans
from agent.build.dockerfile import DockerfileError, parse
from agent.build.plan import Plan
from agent.errors import InvalidArgument

pytestmark = pytest.mark.unit

DIAMOND = """\
FROM golang:1.22 AS base
FROM base AS server
RUN build server
FROM base AS tool
RUN build tool
FROM base AS docs
RUN build docs
FROM scratch
COPY --from=server /s /s
COPY --from=1 /s2 /s2
RUN --mount=type=bind,from=tool,target=/t x
COPY --from=alpine:3 /etc/os-release /
"""


def plan(text: str, **options: object) -> Plan:
    options.setdefault("platform", "linux/amd64")
    return plans.plan(parse(text), **options)  # type: ignore[arg-type]


def test_only_what_the_target_needs_is_built() -> None:
    """Stages come after those that they use; others, and their images, are left out."""
    found = plan(DIAMOND)
    assert [found.stages[index].label for index in found.needed] == ["base", "server", "tool", "4"]
    assert found.images == ("golang:1.22", "alpine:3")
    assert found.steps == 1 + 2 + 2 + 5


def test_target_by_name_and_number() -> None:
    """--target takes what AS says, in any case, or the stage's number."""
    assert plan(DIAMOND, target="Docs").target.name == "docs"
    assert plan(DIAMOND, target="1").needed == (0, 1)
    with pytest.raises(InvalidArgument, match="no stage is called 'x'") as caught:
        plan(DIAMOND, target="x")
    assert caught.value.hint == "the stages are base, server, tool, docs, 4"


def test_a_stage_hides_an_image_of_its_name_only_afterwards() -> None:
    """FROM node AS node is the image node; the next FROM node is the stage."""
    found = plan("FROM node AS node\nFROM node\n")
    assert (found.stages[0].base, found.stages[0].base_stage) == ("node", None)
    assert (found.stages[1].base, found.stages[1].base_stage) == ("", 0)


def test_arguments_before_the_first_from() -> None:
    """They count in FROM lines, with --build-arg over the default and the platform predefined."""
    text = 'ARG V=12\nARG IMAGE="debian:$V-slim"\nFROM --platform=$TARGETPLATFORM ${IMAGE} AS s\nFROM x:${V#1}\n'
    found = plan(text)
    assert [stage.base for stage in found.stages] == ["debian:12-slim", "x:2"]
    assert plan(text, build_args={"V": "11"}).stages[0].base == "debian:11-slim"
    assert plan(text, build_args={"V": "11"}).arguments["V"] == "11"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUN x\n", "RUN stands before the first FROM"),
        ("FROM $NOTHING\n", "FROM \\$NOTHING: the image's name is empty"),
        ("FROM a AS 1st\n", "cannot name a stage"),
        ("FROM a AS b\nFROM a AS B\n", "there is a stage b already"),
        ("FROM a\nCOPY --from=1 x y\n", "there is no stage 1 before this one"),
        ("FROM a\nCOPY --from=later x y\nFROM b AS later\nCOPY --from=0 x y\n", "stage later comes later"),
        ("FROM a AS me\nCOPY --from=me x y\n", "stage me cannot take files from itself"),
        ("FROM --platform=linux/arm64 a\n", "this host builds linux/amd64, not linux/arm64"),
        ("FROM a:${x\n", "missing '}'"),
        ("ARG V\nFROM a:${V?needed}\n", "V: needed"),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    """What cannot be planned is refused with its place, before anything runs."""
    with pytest.raises(DockerfileError, match=message):
        plan(text)


def test_a_file_without_a_stage() -> None:
    """ARG alone is nothing to build."""
    with pytest.raises(InvalidArgument, match="has no FROM"):
        plan("ARG a=1\n")


def test_build_args_that_nothing_takes_are_told() -> None:
    """A name that no ARG has is probably misspelt; the proxies and the platform need no ARG."""
    assert plan("FROM a\nARG x\n", build_args={"x": "1", "HTTP_PROXY": "p", "http_proxy": "p"}).warnings == ()
    (warning,) = plan("FROM a\nARG x\n", build_args={"y": "1", "z": "2"}).warnings
    assert "y, z: no ARG takes it" in warning


def test_a_source_known_only_later_needs_every_earlier_stage() -> None:
    """--from with a variable may mean any of them."""
    found = plan("FROM a AS x\nFROM b AS y\nFROM c\nARG W=x\nCOPY --from=$W f f\n")
    assert found.needed == (0, 1, 2)
