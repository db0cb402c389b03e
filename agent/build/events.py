"""What a build takes and what it tells: plain records, and the error of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.build.dockerfile import Place
from agent.engine.spec import IdRange, Network
from agent.errors import AgentError


class StepFailed(AgentError):
    """A command of a RUN ended badly: the message has the line's place and the exit status, `detail` the last output."""

    code = "build.step_failed"


class BuildCancelled(AgentError):
    """Whoever asked for it went away."""

    code = "build.cancelled"


@dataclass(frozen=True, kw_only=True)
class Request:
    """`tags`: names for the image, none for an untagged one. `file`: what the Dockerfile is called in messages.
    `network`: "" for the bridge, "host", "none"; `address`: what the containers of RUN get on the bridge, one after the
    other. `secrets`: id -> contents.
    """

    dockerfile: str
    ids: IdRange
    address: Network
    file: str = "Dockerfile"
    tags: tuple[str, ...] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    no_cache: bool = False
    pull: bool = False
    network: str = ""
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StepBegins:
    """`number` of `total`, 1 first; a trigger of the base image has the number of its FROM."""

    number: int
    total: int
    text: str
    stage: str


@dataclass(frozen=True, kw_only=True)
class StepEnds:
    """`layer`: diff id of what it added, "" for nothing. `cached`: found again, nothing was done."""

    number: int
    cached: bool
    layer: str
    duration_s: float


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a command wrote: `stream` is "stdout" or "stderr"."""

    stream: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Warned:
    text: str


Event = StepBegins | StepEnds | Said | Warned


class Tail:
    """The last lines of what was written, for an error."""

    LINES = 25
    _BYTES = 3000  # an error on the wire has 4 KiB for its detail

    def __init__(self) -> None:
        self._data = b""

    def add(self, data: bytes) -> None:
        self._data = (self._data + data)[-self._BYTES :]

    def text(self) -> str:
        return "\n".join(self._data.decode(errors="replace").replace("\r\n", "\n").splitlines()[-self.LINES :])


def failed(place: Place, text: str, exit_code: int, tail: Tail) -> StepFailed:
    """The error of a command that did not end with 0."""
    how = f"signal {exit_code - 128}" if 128 < exit_code < 160 else f"exit status {exit_code}"
    return StepFailed(
        f"{place}: {text}: {how}",
        detail="\n".join(line for line in (place.shown, tail.text()) if line),
        hint="the steps before it are kept: the next build begins here",
    )
