"""What stands between a container and its host, as far as the agent makes it: checked at create, the cgroup's part at each start."""

from __future__ import annotations

from agent.engine import device_access, sysctl_names
from agent.engine.cgroup import Cgroup
from agent.engine.seccomp import Filters
from agent.engine.spec import ContainerSpec
from agent.errors import InvalidArgument


def check(spec: ContainerSpec, filters: Filters) -> None:
    """What it asks for and this host cannot give is refused at once, not at the start. Raises InvalidArgument, Unsupported."""
    for name in ("pid", "ipc", "uts", "user"):
        if (value := getattr(spec.isolation, name)) not in ("", "host"):
            raise InvalidArgument(f'{value!r} is no {name} namespace: its own (nothing said) or "host"')
    sysctl_names.check(spec)
    device_access.check(spec)
    filters.path(spec)


def restrict(cgroup: Cgroup, spec: ContainerSpec) -> None:
    """The cgroup is made and has no tasks yet. Raises as device_access.restrict()."""
    device_access.restrict(cgroup, spec)
