"""Which stages a Dockerfile has, what each is made from, and which of them a target needs. Pure functions.

FROM debian:12 AS base      stage 0
FROM base AS build          stage 1, from stage 0
FROM scratch                stage 2
COPY --from=build /a /a     ... needs stage 1: order 0, 1, 2
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from agent.build import variables
from agent.build.dockerfile import Dockerfile, DockerfileError, Instruction, Place
from agent.errors import InvalidArgument

SCRATCH = "scratch"
_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """`base`: an image's name, or "scratch"; "" where `base_stage` says which stage. `instructions`: without FROM."""

    index: int
    name: str
    base: str
    base_stage: int | None
    source: Instruction
    instructions: tuple[Instruction, ...]

    @property
    def label(self) -> str:
        return self.name or str(self.index)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`needed`: stages to build, each after those that it uses; the last is the target. `arguments`: ARGs before the
    first FROM, with their values. `images`: those that must be there.
    """

    escape: str
    stages: tuple[Stage, ...]
    needed: tuple[int, ...]
    arguments: Mapping[str, str]
    images: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def target(self) -> Stage:
        return self.stages[self.needed[-1]]

    @property
    def steps(self) -> int:
        """How many instructions the needed stages have, FROM included."""
        return sum(1 + len(self.stages[index].instructions) for index in self.needed)


def plan(
    dockerfile: Dockerfile, *, build_args: Mapping[str, str] | None = None, target: str = "", platform: str = ""
) -> Plan:
    """`target`: a stage's name or number, "" for the last. `platform`: "" for this host's. Raises DockerfileError,
    InvalidArgument for a target that is not there.
    """
    platform = platform or variables.host_platform()
    build_args = build_args or {}
    predefined = variables.platform_values(platform)
    arguments = dict(predefined)
    stages: list[Stage] = []
    pending: list[Instruction] = []
    source: Instruction | None = None
    meta: dict[str, str] = {}
    for one in (*dockerfile.instructions, None):
        if one is not None and one.name != "FROM":
            if source is not None:
                pending.append(one)
            elif one.name == "ARG":
                found = declared(one, {**arguments, **meta}, dockerfile.escape, build_args, {})
                meta |= {name: value for name, value in found.items() if value is not None}
            else:
                raise DockerfileError(one.place, f"{one.name} stands before the first FROM", hint="only ARG may")
            continue
        if source is not None:
            stages.append(_stage(source, pending, stages, {**arguments, **meta}, dockerfile.escape, platform))
        source, pending = one, []
    if not stages:
        raise InvalidArgument("the Dockerfile has no FROM", hint="begin with FROM IMAGE, or FROM scratch")
    wanted = _target(stages, target)
    needed = _needed(stages, wanted.index)
    images = {stages[index].base: None for index in needed if stages[index].base not in ("", SCRATCH)}
    for index in needed:
        for name, _ in sources(stages[index]):
            if resolve(stages[:index], name) is None and not _has_variable(name):
                images.setdefault(name)
    return Plan(
        escape=dockerfile.escape,
        stages=tuple(stages),
        needed=needed,
        arguments={**meta, **predefined},
        images=tuple(images),
        warnings=(*dockerfile.warnings, *_unused(dockerfile, build_args, predefined)),
    )


def declared(
    one: Instruction,
    values: Mapping[str, str],
    escape: str,
    build_args: Mapping[str, str],
    outer: Mapping[str, str],
) -> dict[str, str | None]:
    """What one ARG declares: name -> value, None where nobody gives one. --build-arg goes over the default, and the
    ARG of the same name before the first FROM (`outer`) counts where there is no default.
    """
    found: dict[str, str | None] = {}
    for text in one.args:
        name, equals, default = text.partition("=")
        name = variables.word(name, values, escape, one.place)
        if not name:
            raise DockerfileError(one.place, f"ARG {text}: the name is empty")
        if name in build_args:
            found[name] = build_args[name]
        elif equals:
            found[name] = variables.word(default, values, escape, one.place)
        else:
            found[name] = outer.get(name)
    return found


def resolve(before: tuple[Stage, ...] | list[Stage], name: str) -> int | None:
    """The stage that `name` (a name, or a number) means among those `before`, else None: then it is an image."""
    for stage in reversed(before):
        if stage.name and stage.name == name.lower():
            return stage.index
    return int(name) if name.isdigit() and int(name) < len(before) else None


def sources(stage: Stage) -> list[tuple[str, Place]]:
    """What COPY --from and RUN --mount=from= name, variables still in it."""
    found = [(one.flag("from"), one.place) for one in stage.instructions if one.name == "COPY" and one.flag("from")]
    for one in stage.instructions:
        for mount in one.flag_values("mount"):
            fields = dict(field.partition("=")[::2] for field in mount.split(","))
            if fields.get("from"):
                found.append((fields["from"], one.place))
    return found


def _stage(
    source: Instruction,
    instructions: list[Instruction],
    before: list[Stage],
    values: Mapping[str, str],
    escape: str,
    platform: str,
) -> Stage:
    place = source.place
    base = variables.word(source.args[0], values, escape, place)
    if not base:
        raise DockerfileError(place, f"FROM {source.args[0]}: the image's name is empty", hint="give the ARG a default")
    wanted = variables.word(source.flag("platform"), values, escape, place)
    if wanted and wanted.split("/")[:2] != platform.split("/")[:2]:
        raise DockerfileError(
            place, f"this host builds {platform}, not {wanted}", hint="build on a host of that platform: --host"
        )
    name = source.args[2].lower() if len(source.args) == 3 else ""
    if name and not _STAGE_NAME.fullmatch(name):
        raise DockerfileError(
            place, f"{source.args[2]!r} cannot name a stage", hint="a letter, then letters, digits, _ . -"
        )
    if name and any(stage.name == name for stage in before):
        raise DockerfileError(place, f"there is a stage {name} already")
    base_stage = next((stage.index for stage in reversed(before) if stage.name and stage.name == base.lower()), None)
    return Stage(
        index=len(before),
        name=name,
        base="" if base_stage is not None else base,
        base_stage=base_stage,
        source=source,
        instructions=tuple(instructions),
    )


def _target(stages: list[Stage], target: str) -> Stage:
    if not target:
        return stages[-1]
    index = resolve(stages, target)
    if index is None:
        names = ", ".join(stage.label for stage in stages)
        raise InvalidArgument(f"no stage is called {target!r}", hint=f"the stages are {names}")
    return stages[index]


def _needed(stages: list[Stage], target: int) -> tuple[int, ...]:
    order: dict[int, None] = {}

    def visit(index: int) -> None:
        stage = stages[index]
        if stage.base_stage is not None:
            visit(stage.base_stage)
        for name, place in sources(stage):
            if name.lower() == stage.name or name == str(index):
                raise DockerfileError(place, f"stage {stage.label} cannot take files from itself")
            used = resolve(stages[:index], name)
            if used is not None:
                visit(used)
            elif name.isdigit():
                raise DockerfileError(place, f"there is no stage {name} before this one")
            elif any(later.name == name.lower() for later in stages[index:]):
                raise DockerfileError(place, f"stage {name} comes later", hint="a stage uses only those before it")
            elif _has_variable(name):
                for one in range(index):
                    visit(one)  # which one is known only when the build gets there
        order.setdefault(index)

    visit(target)
    return tuple(order)


def _has_variable(text: str) -> bool:
    return "$" in text


def _unused(dockerfile: Dockerfile, build_args: Mapping[str, str], predefined: Mapping[str, str]) -> list[str]:
    known = {text.partition("=")[0] for one in dockerfile.instructions if one.name == "ARG" for text in one.args}
    known |= {*variables.PROXIES, *predefined}
    unused = sorted(name for name in build_args if name not in known)
    return [f"--build-arg {', '.join(unused)}: no ARG takes it"] if unused else []
