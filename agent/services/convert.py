"""Dataclasses to protobuf and back, both directions, nothing else. Generated classes do not travel past the services."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from agent.engine.spec import ContainerSpec, Limits, to_plain
from agent.engine.state import ContainerStatus, State
from agent.engine.usage import Usage
from agent.engine.volumes import Volume
from agent.errors import InvalidArgument, NotFound
from agent.scan.finding import Blocker
from agent.setup.capability import Capability
from agent.storage.images import Image, ImageConfig
from agent.storage.skopeo import Access
from migrate.rpc import messages
from protos import agent_pb2, types_pb2

LOWEST_ID = 65536  # below are the host's own users
HIGHEST_ID = (1 << 32) - 2
_ID = re.compile(r"[0-9a-f]{32}")
_STATES = {
    State.CREATED: types_pb2.CONTAINER_STATE_CREATED,
    State.RUNNING: types_pb2.CONTAINER_STATE_RUNNING,
    State.FROZEN: types_pb2.CONTAINER_STATE_FROZEN,
    State.EXITED: types_pb2.CONTAINER_STATE_EXITED,
    State.ARRIVING: types_pb2.CONTAINER_STATE_ARRIVING,
    State.LOST: types_pb2.CONTAINER_STATE_LOST,
    State.PAUSED: types_pb2.CONTAINER_STATE_PAUSED,
    State.RESTARTING: types_pb2.CONTAINER_STATE_RESTARTING,
}


def container_id(text: str) -> str:
    """`text`, which becomes a part of paths. Raises NotFound for what no container can be called."""
    if not _ID.fullmatch(text):
        raise NotFound(f"no container {text!r} on this host: an id has 32 hexadecimal digits")
    return text


def state_to_proto(state: State) -> types_pb2.ContainerState:
    return _STATES[state]


def spec_to_proto(spec: ContainerSpec) -> types_pb2.ContainerSpec:
    return types_pb2.ContainerSpec(**to_plain(spec))


def spec_from_proto(message: types_pb2.ContainerSpec) -> ContainerSpec:
    """Raises InvalidArgument for an id that is none, and for ids that are the host's own users."""
    if not _ID.fullmatch(message.id):
        raise InvalidArgument(f"{message.id!r} is no id of a container: it takes 32 hexadecimal digits")
    if message.isolation.user != "host" or (message.ids.base, message.ids.count) != (0, (1 << 32) - 1):
        check_ids(message.ids, f"container {message.name}")
    return messages.record(ContainerSpec, message)


def limits_from_proto(message: types_pb2.Limits) -> Limits:
    return messages.record(Limits, message)


def check_ids(ids: types_pb2.IdRange, whose: str) -> None:
    """Raises InvalidArgument for a range with ids of the host's own users."""
    first, last = ids.base, ids.base + ids.count - 1
    if first < LOWEST_ID or ids.count < 1 or last > HIGHEST_ID:
        raise InvalidArgument(
            f"{whose} cannot have the host's ids {first} to {last}",
            hint=f"a range of ids lies between {LOWEST_ID} and {HIGHEST_ID}",
        )


def status_to_proto(status: ContainerStatus) -> types_pb2.ContainerStatus:
    return types_pb2.ContainerStatus(
        spec=spec_to_proto(status.spec),
        state=state_to_proto(status.state),
        pid=status.pid,
        started_unix_ns=status.started_unix_ns,
        finished_unix_ns=status.finished_unix_ns,
        exit_code=status.exit_code,
        error=status.error,
        host=status.host,
        epoch=status.epoch,
        migration_id=status.migration_id,
        oom_kills=status.oom_kills,
        restarts=status.restarts,
        health=types_pb2.Health(**dataclasses.asdict(status.health)) if status.health.status else None,
    )


def usage_to_proto(container_id: str, used: Usage, memory_limit_bytes: int) -> types_pb2.ContainerUsage:
    return types_pb2.ContainerUsage(id=container_id, memory_limit_bytes=memory_limit_bytes, **dataclasses.asdict(used))


def volume_to_proto(volume: Volume) -> types_pb2.Volume:
    return types_pb2.Volume(**dataclasses.asdict(volume))


def volumes_from_proto(found: Iterable[types_pb2.Volume]) -> list[Volume]:
    return [messages.record(Volume, one) for one in found]


def config_from_proto(message: types_pb2.ImageConfig) -> ImageConfig:
    return messages.record(ImageConfig, message)


def image_to_proto(image: Image, host: str = "") -> types_pb2.Image:
    return types_pb2.Image(**{**dataclasses.asdict(image), "host": host})


def image_from_proto(message: types_pb2.Image) -> Image:
    return messages.record(Image, message)


def access_from_proto(message: agent_pb2.RegistryAccess) -> Access:
    return messages.record(Access, message)


def blocker_to_proto(blocker: Blocker) -> agent_pb2.Blocker:
    return agent_pb2.Blocker(**dataclasses.asdict(blocker))


def capability_to_proto(capability: Capability) -> agent_pb2.Capability:
    return agent_pb2.Capability(**dataclasses.asdict(capability))
