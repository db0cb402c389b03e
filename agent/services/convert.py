"""Dataclasses to protobuf and back, both directions, nothing else. Generated classes do not travel past the services."""

from __future__ import annotations

import dataclasses

from agent.engine.spec import ContainerSpec, IdRange, Limits, Network
from agent.engine.state import ContainerStatus, State
from agent.setup.capability import Capability
from agent.storage.images import Image, ImageConfig
from protos import agent_pb2, types_pb2

_STATES = {
    State.CREATED: types_pb2.CONTAINER_STATE_CREATED,
    State.RUNNING: types_pb2.CONTAINER_STATE_RUNNING,
    State.FROZEN: types_pb2.CONTAINER_STATE_FROZEN,
    State.EXITED: types_pb2.CONTAINER_STATE_EXITED,
    State.ARRIVING: types_pb2.CONTAINER_STATE_ARRIVING,
    State.LOST: types_pb2.CONTAINER_STATE_LOST,
}


def state_to_proto(state: State) -> types_pb2.ContainerState:
    return _STATES[state]


def spec_to_proto(spec: ContainerSpec) -> types_pb2.ContainerSpec:
    return types_pb2.ContainerSpec(**dataclasses.asdict(spec))


def spec_from_proto(message: types_pb2.ContainerSpec) -> ContainerSpec:
    plain = {
        name: getattr(message, name)
        for name in (
            "id", "name", "image", "image_digest", "cwd", "user", "hostname", "tty", "stdin_open", "stop_signal",
            "stop_timeout_s", "created_unix_ns",
        )
    }  # fmt: skip
    lists = {name: tuple(getattr(message, name)) for name in ("layers", "argv", "env", "capabilities")}
    network, limits = message.network, message.limits
    return ContainerSpec(
        **plain,
        **lists,
        labels=dict(message.labels),
        ids=IdRange(base=message.ids.base, count=message.ids.count),
        network=Network(address=network.address, mac=network.mac, gateway=network.gateway, mtu=network.mtu),
        limits=Limits(memory_bytes=limits.memory_bytes, cpus=limits.cpus, pids=limits.pids),
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
    )


def config_from_proto(message: types_pb2.ImageConfig) -> ImageConfig:
    return ImageConfig(
        cmd=tuple(message.cmd),
        entrypoint=tuple(message.entrypoint),
        env=tuple(message.env),
        working_dir=message.working_dir,
        user=message.user,
        labels=dict(message.labels),
        stop_signal=message.stop_signal,
    )


def image_to_proto(image: Image, host: str = "") -> types_pb2.Image:
    return types_pb2.Image(**{**dataclasses.asdict(image), "host": host})


def image_from_proto(message: types_pb2.Image) -> Image:
    return Image(
        name=message.name,
        digest=message.digest,
        layers=tuple(message.layers),
        size_bytes=message.size_bytes,
        created_unix_ns=message.created_unix_ns,
        config=config_from_proto(message.config),
    )


def capability_to_proto(capability: Capability) -> agent_pb2.Capability:
    return agent_pb2.Capability(**dataclasses.asdict(capability))
