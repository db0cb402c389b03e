"""Which kernel parameters a container may have its own value of."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.engine import sysctl_names
from agent.engine.spec import ContainerSpec, IdRange, Isolation, Network
from agent.errors import InvalidArgument

pytestmark = pytest.mark.unit


def spec(name: str, *, network: str = "", ipc: str = "") -> ContainerSpec:
    return ContainerSpec(
        id="0" * 32,
        name="one",
        image="",
        image_digest="",
        layers=(),
        argv=("x",),
        env=(),
        cwd="/",
        user="",
        hostname="one",
        ids=IdRange(base=65536),
        network=Network(address="", mac="", mode=network),
        isolation=Isolation(sysctls={name: "1"}, ipc=ipc),
    )


@pytest.mark.parametrize(
    "name",
    ["net.core.somaxconn", "net/core/somaxconn", "net.ipv4.conf.eth0/1.forwarding", "kernel.msgmax", "kernel.sem",
     "kernel.shm_rmid_forced", "fs.mqueue.msg_max"],
)  # fmt: skip
def test_what_belongs_to_a_namespace_is_allowed(name: str) -> None:
    """Those of the network and of IPC, as Docker has it."""
    sysctl_names.check(spec(name))


@pytest.mark.parametrize(
    "name",
    ["kernel.core_pattern", "kernel.hostname", "kernel.shmall2", "vm.swappiness", "fs.file-max", "", ".", "net",
     "net/../kernel/core_pattern",
     "net...kernel.core_pattern", "/proc/sys/kernel/core_pattern", "/etc/passwd", "fs.mqueue", "..net.core", "kernel/../vm/swappiness"],
)  # fmt: skip
def test_what_is_the_host_s_is_refused(name: str) -> None:
    """By whatever spelling."""
    with pytest.raises(InvalidArgument, match="is not allowed"):
        sysctl_names.check(spec(name))


def test_a_namespace_that_is_the_host_s_has_none() -> None:
    """With --network host or --ipc host they would be the host's own."""
    with pytest.raises(InvalidArgument, match="in the host's network"):
        sysctl_names.check(spec("net.core.somaxconn", network="host"))
    with pytest.raises(InvalidArgument, match="--ipc host"):
        sysctl_names.check(spec("kernel.msgmax", ipc="host"))


def test_names_with_dots_in_their_parts() -> None:
    """As sysctl(8): after a first dot a slash stands for one, as in the name of an interface."""
    assert sysctl_names.path_of("net.ipv4.conf.eth0/1.forwarding") == Path("/proc/sys/net/ipv4/conf/eth0.1/forwarding")
    assert sysctl_names.path_of("net/ipv4/conf/eth0.1/forwarding") == Path("/proc/sys/net/ipv4/conf/eth0.1/forwarding")
