"""Kernel parameters of a container's own network and IPC namespaces (`--sysctl`).

Their monitor sets them, before the first program runs and again in a restore: CRIU carries those of the IPC namespace and few of the
network's. Those of the network are written as the container's root, so that nothing that is the whole host's can be among them;
those of IPC as the host's, for older kernels let nobody else, or as the container's, for newer ones let that one alone. Forks: for
a process with a single thread. Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from agent.engine import sysctl_names
from agent.linux import namespaces, process

# As Docker's: in a network of one's own no port and no ping needs a privilege.
_DEFAULTS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}


def apply_defaults(pid: int) -> None:
    """For a container with a network of its own. Raises OSError."""
    with namespaces.network_of(pid):
        for name, value in _DEFAULTS.items():
            _set(name, value)


def apply(pid: int, values: Mapping[str, str]) -> None:
    """Set them in the namespaces of the process `pid`. Raises OSError that names the parameter."""
    if not values:
        return
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _set_all(pid, values)
        except OSError as exc:
            os.write(write_end, f"{exc.errno or 0} {exc.strerror}".encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as answer:
        text = answer.read().decode()
    os.waitpid(child, 0)
    if text:
        number, _, what = text.partition(" ")
        raise OSError(int(number), what)


def _set_all(pid: int, values: Mapping[str, str]) -> None:
    pidfd = process.pidfd_open(pid)
    of_network = {
        name: value
        for name, value in values.items()
        if sysctl_names.path_of(name).is_relative_to(sysctl_names.ROOT / "net")
    }
    namespaces.setns(pidfd, namespaces.CLONE_NEWIPC)
    later = dict(of_network)
    for name in values.keys() - of_network.keys():
        try:
            _set(name, values[name])
        except PermissionError:
            later[name] = values[name]
    namespaces.setns(pidfd, namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNET)
    os.setgroups(())
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    for name, value in later.items():
        _set(name, value)


def _set(name: str, value: str) -> None:
    try:
        fd = os.open(sysctl_names.path_of(name), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as exc:
        raise OSError(exc.errno, f"sysctl {name}={value}: {exc.strerror}") from exc
