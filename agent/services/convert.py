"""Dataclasses to protobuf and back, both directions, nothing else. Generated classes do not travel past the services."""

from __future__ import annotations

import dataclasses
import re

from agent.engine.spec import ContainerSpec, DeviceRate, IdRange, Limits, Network, Ulimit
from agent.engine.state import ContainerStatus, State
from agent.engine.usage import Usage
from agent.errors import InvalidArgument, NotFound
from agent.setup.capability import Capability
from agent.storage.images import Healthcheck, Image, ImageConfig
from agent.storage.skopeo import Access
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
}


def container_id(text: str) -> str:
    """`text`, which becomes a part of paths. Raises NotFound for what no container can be called."""
    if not _ID.fullmatch(text):
        raise NotFound(f"no container {text!r} on this host: an id has 32 hexadecimal digits")
    return text


def state_to_proto(state: State) -> types_pb2.ContainerState:
    return _STATES[state]


def spec_to_proto(spec: ContainerSpec) -> types_pb2.ContainerSpec:
    return types_pb2.ContainerSpec(**dataclasses.asdict(spec))


def spec_from_proto(message: types_pb2.ContainerSpec) -> ContainerSpec:
    """Raises InvalidArgument for an id that is none, and for ids that are the host's own users."""
    if not _ID.fullmatch(message.id):
        raise InvalidArgument(f"{message.id!r} is no id of a container: it takes 32 hexadecimal digits")
    check_ids(message.ids, f"container {message.name}")
    network = message.network
    return ContainerSpec(
        id=message.id,
        name=message.name,
        image=message.image,
        image_digest=message.image_digest,
        layers=tuple(message.layers),
        argv=tuple(message.argv),
        env=tuple(message.env),
        cwd=message.cwd,
        user=message.user,
        hostname=message.hostname,
        ids=IdRange(base=message.ids.base, count=message.ids.count),
        network=Network(address=network.address, mac=network.mac, gateway=network.gateway, mtu=network.mtu),
        limits=limits_from_proto(message.limits),
        tty=message.tty,
        stdin_open=message.stdin_open,
        capabilities=tuple(message.capabilities),
        stop_signal=message.stop_signal,
        stop_timeout_s=message.stop_timeout_s,
        labels=dict(message.labels),
        created_unix_ns=message.created_unix_ns,
        remove_on_exit=message.remove_on_exit,
    )


def limits_from_proto(message: types_pb2.Limits) -> Limits:
    values = {name: getattr(message, name) for name in Limits.__dataclass_fields__}
    values["device_rates"] = tuple(DeviceRate(path=r.path, what=r.what, rate=r.rate) for r in message.device_rates)
    values["ulimits"] = tuple(Ulimit(name=u.name, soft=u.soft, hard=u.hard) for u in message.ulimits)
    return Limits(**values)


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
    )


def usage_to_proto(container_id: str, used: Usage, memory_limit_bytes: int) -> types_pb2.ContainerUsage:
    return types_pb2.ContainerUsage(id=container_id, memory_limit_bytes=memory_limit_bytes, **dataclasses.asdict(used))


def config_from_proto(message: types_pb2.ImageConfig) -> ImageConfig:
    check = message.healthcheck
    return ImageConfig(
        cmd=tuple(message.cmd),
        entrypoint=tuple(message.entrypoint),
        env=tuple(message.env),
        working_dir=message.working_dir,
        user=message.user,
        labels=dict(message.labels),
        stop_signal=message.stop_signal,
        exposed_ports=tuple(message.exposed_ports),
        volumes=tuple(message.volumes),
        healthcheck=Healthcheck(
            test=tuple(check.test),
            interval_ns=check.interval_ns,
            timeout_ns=check.timeout_ns,
            start_period_ns=check.start_period_ns,
            retries=check.retries,
        )
        if message.HasField("healthcheck")
        else None,
        shell=tuple(message.shell),
        on_build=tuple(message.on_build),
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
        document=message.document,
        repo_digests=tuple(message.repo_digests),
        layer_bytes=tuple(message.layer_bytes),
        stored_bytes=message.stored_bytes,
    )


def access_from_proto(message: agent_pb2.RegistryAccess) -> Access:
    return Access(credentials=message.credentials, unverified=message.unverified, certificates=message.certificates)


def capability_to_proto(capability: Capability) -> agent_pb2.Capability:
    return agent_pb2.Capability(**dataclasses.asdict(capability))
