"""Dataclasses and messages say the same, field for field."""

from __future__ import annotations

import dataclasses

import pytest

import agent
import migrate
from agent.engine.spec import (
    ContainerSpec,
    Device,
    DeviceRate,
    IdRange,
    Isolation,
    Limits,
    Mount,
    Network,
    Port,
    RestartPolicy,
    Secret,
    Ulimit,
)
from agent.engine.state import ContainerStatus, State
from agent.errors import InvalidArgument, NotFound
from agent.services import convert
from agent.setup.capability import Capability
from agent.storage.images import Healthcheck, Image, ImageConfig
from protos import types_pb2

pytestmark = pytest.mark.unit

# No field has its default: one that is forgotten shows.
SPEC = ContainerSpec(
    id="0123456789abcdef" * 2,
    name="web1",
    image="redis:7",
    image_digest="sha256:aa",
    layers=("sha256:bb", "sha256:cc"),
    argv=("redis-server", "--port", "1"),
    env=("A=1", "B=2"),
    cwd="/data",
    user="redis",
    hostname="web1.test",
    ids=IdRange(base=131072, count=1000),
    network=Network(
        address="10.88.1.2/16",
        mac="02:42:0a:58:01:02",
        gateway="10.88.0.1",
        mtu=1400,
        mode="none",
        ports=(Port(host_address="127.0.0.1", host_port=80, container_port=81, protocol="udp"),),
        extra_hosts=("a:10.0.0.1",),
        dns=("10.0.0.2",),
        dns_search=("example.org",),
        dns_options=("ndots:1",),
    ),
    limits=Limits(
        memory_bytes=1 << 33,
        cpus=1.5,
        pids=100,
        memory_swap_bytes=-1,
        memory_reservation_bytes=1 << 32,
        cpu_shares=512,
        cpu_period_us=50_000,
        cpu_quota_us=25_000,
        cpuset_cpus="0-1",
        blkio_weight=300,
        device_rates=(DeviceRate(path="/dev/sda", what="read_bps", rate=1 << 20),),
        ulimits=(Ulimit(name="nofile", soft=10, hard=-1),),
        shm_bytes=1 << 20,
        oom_score_adj=-5,
        storage_bytes=1 << 30,
        cpuset_mems="0",
        memory_swappiness=0,
        oom_kill_disable=True,
    ),
    tty=True,
    stdin_open=True,
    capabilities=("CAP_KILL",),
    stop_signal="SIGINT",
    stop_timeout_s=2.5,
    labels={"a": "b"},
    created_unix_ns=1_700_000_000_000_000_001,
    remove_on_exit=True,
    mounts=(
        Mount(
            kind="volume",
            source="v",
            target="/v",
            read_only=True,
            propagation="slave",
            size_bytes=1 << 40,
            mode=0o700,
            no_copy=True,
            anonymous=True,
            create_source=True,
        ),
    ),
    read_only=True,
    isolation=Isolation(
        seccomp="{}",
        new_privileges=True,
        sysctls={"net.core.somaxconn": "1"},
        devices=(Device(source="/dev/a", target="/dev/b", permissions="r"),),
        pid="host",
        ipc="host",
        uts="host",
        user="host",
        device_rules=("c 189:* rwm",),
    ),
    restart=RestartPolicy(name="on-failure", max_retries=3),
    health=Healthcheck(
        test=("CMD", "true"), interval_ns=10**9, timeout_ns=2, start_period_ns=3, retries=4, start_interval_ns=5
    ),
    init=True,
    log_options={"max-size": "1m"},
    groups=("audio", "29"),
    domainname="example.org",
    annotations={"a.b": "c"},
    umask="0027",
    timezone="Europe/Berlin",
    secrets=(Secret(name="s", target="/run/secrets/s", uid=1, gid=2, mode=0o400),),
)
STATUS = ContainerStatus(
    spec=SPEC,
    state=State.EXITED,
    pid=7,
    started_unix_ns=1,
    finished_unix_ns=2,
    exit_code=0,
    error="e",
    host="host1",
    epoch=3,
    migration_id="m",
    role="source",
)
IMAGE = Image(
    name="redis:7",
    digest="sha256:aa",
    layers=("sha256:bb",),
    size_bytes=1 << 40,
    created_unix_ns=5,
    config=ImageConfig(
        cmd=("c",),
        entrypoint=("e",),
        env=("A=1",),
        working_dir="/w",
        user="u",
        labels={"l": "m"},
        stop_signal="SIGINT",
        exposed_ports=("80/tcp",),
        volumes=("/data",),
        healthcheck=Healthcheck(
            test=("CMD", "true"),
            interval_ns=10**9,
            timeout_ns=2 * 10**9,
            start_period_ns=3 * 10**9,
            retries=4,
            start_interval_ns=7,
        ),
        shell=("/bin/bash", "-c"),
        on_build=("RUN true",),
    ),
    document='{"a": "\u00e4"}',
    repo_digests=("registry:5000/redis@sha256:cc",),
    layer_bytes=(1 << 40,),
    stored_bytes=1 << 33,
)


def test_a_spec_survives_the_round_trip() -> None:
    """No field of a spec is lost or changed on the wire."""
    message = convert.spec_to_proto(SPEC)
    assert {field.name for field, _ in message.ListFields()} == {field.name for field in dataclasses.fields(SPEC)}
    limits = {field.name for field, _ in message.limits.ListFields()}
    assert limits == {field.name for field in dataclasses.fields(SPEC.limits)}
    assert convert.spec_from_proto(types_pb2.ContainerSpec.FromString(message.SerializeToString())) == SPEC
    assert ContainerSpec.from_json(SPEC.to_json()) == SPEC


def test_an_image_survives_the_round_trip() -> None:
    """No field of an image or its config is lost; the host is added."""
    message = convert.image_to_proto(IMAGE, "host1")
    assert message.host == "host1"
    assert convert.image_from_proto(message) == IMAGE
    assert len(message.config.ListFields()) == len(dataclasses.fields(IMAGE.config))


def test_a_status_carries_every_field_and_tells_zero_from_nothing() -> None:
    """An exit code of 0 is an exit code; without one there is none."""
    message = convert.status_to_proto(STATUS)
    assert message.HasField("exit_code")
    assert (message.exit_code, message.pid, message.host, message.epoch) == (0, 7, "host1", 3)
    assert not convert.status_to_proto(dataclasses.replace(STATUS, exit_code=None)).HasField("exit_code")


@pytest.mark.parametrize("state", State)
def test_states_have_the_same_names_on_the_wire(state: State) -> None:
    """Each state of the engine is the wire's state of that name."""
    name = types_pb2.ContainerState.Name(convert.state_to_proto(state))
    assert name == f"CONTAINER_STATE_{state.name}"


def test_capabilities_carry_what_doctor_shows() -> None:
    """Name, verdict, value, remedy and whether it is required arrive."""
    message = convert.capability_to_proto(Capability(name="criu", ok=True, value="4.2.1", remedy="r", required=True))
    assert (message.name, message.ok, message.value, message.remedy, message.required) == (
        "criu", True, "4.2.1", "r", True,
    )  # fmt: skip


@pytest.mark.parametrize("text", ["", "web1", "../../etc", "0" * 31, "0" * 33, "A" * 32, "0" * 32 + "\n"])
def test_what_cannot_be_an_id_never_becomes_a_path(text: str) -> None:
    """Ids are checked before they name a directory, in requests and in specs."""
    with pytest.raises(NotFound):
        convert.container_id(text)
    message = convert.spec_to_proto(SPEC)
    message.id = text
    with pytest.raises(InvalidArgument, match="no id"):
        convert.spec_from_proto(message)


@pytest.mark.parametrize(("base", "count"), [(0, 65536), (65535, 1), (131072, 0), ((1 << 32) - 10, 65536)])
def test_ids_of_the_hosts_own_users_are_refused(base: int, count: int) -> None:
    """No container is ever mapped to the host's root or users."""
    message = convert.spec_to_proto(SPEC)
    message.ids.base, message.ids.count = base, count
    with pytest.raises(InvalidArgument, match="cannot have the host's ids"):
        convert.spec_from_proto(message)


def test_agent_and_fleet_have_one_version() -> None:
    """The two import packages are one distribution and say the same version."""
    assert agent.__version__ == migrate.__version__
