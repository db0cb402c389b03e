"""A container as templates and filters see it: its own fields, and beside them those that Docker's `ps` and `inspect` have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from migrate.cli import network, tables
from migrate.cli.free import Free

if TYPE_CHECKING:
    from migrate.records import Container, Port

FILTERS = (
    "name", "id", "status", "host", "image", "ancestor", "label", "exited", "health", "network", "volume", "before", "since",
)  # fmt: skip


def listed(container: Container, *, truncate: bool = True) -> dict[str, Any]:
    """For `ps --format`. `Labels` is a mapping, so that {{.Label "key"}} finds one."""
    return container.to_dict() | {
        "ID": tables.short(container.id) if truncate else container.id,
        "Names": container.name,
        "Name": container.name,
        "Image": container.image,
        "Command": '"' + " ".join(container.argv) + '"',
        "CreatedAt": tables.stamp(container.created_unix_ns),
        "RunningFor": tables.ago(container.created_unix_ns) + " ago",
        "Status": docker_status(container),
        "State": container.state,
        "Size": tables.size(container.layer_bytes),
        "Labels": ",".join(f"{key}={value}" for key, value in container.labels.items()),
        "Label": dict(container.labels),
        "Mounts": ",".join(one.source or one.target for one in container.mounts),
        "Networks": container.network_mode or "bridge",
        "Ports": network.summary(container),
        "Host": container.host,
        "Address": container.address.partition("/")[0],
        "Health": container.health_now.status,
    }


def inspected(container: Container) -> dict[str, Any]:
    """For `inspect --format`: the nested fields of Docker that scripts ask for most."""
    health = container.health_now
    state: dict[str, Any] = {
        "Status": container.state,
        "Running": container.state in ("running", "paused", "frozen", "lost"),
        "Paused": container.state == "paused",
        "Restarting": container.state == "restarting",
        "OOMKilled": container.oom_killed,
        "Pid": container.pid,
        "ExitCode": container.exit_code or 0,
        "Error": container.error,
        "StartedAt": tables.stamp(container.started_unix_ns),
        "FinishedAt": tables.stamp(container.finished_unix_ns),
    }
    if health.status:
        log = [
            {
                "Start": tables.stamp(one.started_unix_ns),
                "End": tables.stamp(one.ended_unix_ns),
                "ExitCode": one.exit_code,
                "Output": one.output,
            }
            for one in health.log
        ]
        state["Health"] = {"Status": health.status, "FailingStreak": health.failing_streak, "Log": log}
    return container.to_dict() | {
        "Id": container.id,
        "Name": container.name,
        "Path": container.argv[0] if container.argv else "",
        "Args": list(container.argv[1:]),
        "ImageName": container.image,
        "Created": tables.stamp(container.created_unix_ns),
        "Image": container.image_digest,
        "RestartCount": container.restarts,
        "State": state,
        "Config": {
            "Hostname": container.hostname,
            "Domainname": container.domainname,
            "Annotations": Free(container.annotations),
            "Umask": container.umask or "0022",
            "Timezone": container.timezone,
            "Secrets": [{"Name": one.name, "Target": one.target} for one in container.secrets],
            "User": container.user,
            "Env": list(container.env),
            "Cmd": list(container.argv),
            "Image": container.image,
            "WorkingDir": container.cwd,
            "Labels": Free(container.labels),
            "Tty": container.tty,
            "OpenStdin": container.stdin_open,
            "StopSignal": container.stop_signal,
            "StopTimeout": container.stop_timeout_s,
            "ExposedPorts": Free((port, {}) for port in container.exposed),
            "Healthcheck": {
                "Test": list(container.health.test),
                "Interval": container.health.interval_ns,
                "Timeout": container.health.timeout_ns,
                "StartPeriod": container.health.start_period_ns,
                "StartInterval": container.health.start_interval_ns,
                "Retries": container.health.retries,
            },
        },
        "HostConfig": _host_config(container),
        "Mounts": [
            {
                "Type": one.kind,
                "Name": one.source if one.kind == "volume" else "",
                "Source": one.source,
                "Destination": one.target,
                "Driver": "local" if one.kind == "volume" else "",
                "Mode": ",".join(one.options),
                "RW": not one.read_only,
                "Propagation": (one.propagation or "rprivate") if one.kind == "bind" else "",
            }
            for one in container.mounts
        ],
        "NetworkSettings": {
            "IPAddress": container.address.partition("/")[0],
            "IPPrefixLen": int(container.address.partition("/")[2] or 0),
            "MacAddress": container.mac,
            "Gateway": container.gateway,
            "Ports": _ports(container),
            "Networks": Free(
                {
                    container.network_mode or "bridge": {
                        "IPAddress": container.address.partition("/")[0],
                        "MacAddress": container.mac,
                        "Gateway": container.gateway,
                    }
                }
            ),
        },
        "Node": {"Name": container.host},
    }


def _host_config(container: Container) -> dict[str, Any]:
    apart = container.isolation
    binds = [one for one in container.mounts if one.kind in ("bind", "volume")]
    return {
        "Memory": container.memory_bytes,
        "MemorySwap": container.memory_swap_bytes,
        "MemoryReservation": container.memory_reservation_bytes,
        "NanoCpus": int(container.cpus * 1e9),
        "CpuShares": container.cpu_shares,
        "CpuPeriod": container.cpu_period_us,
        "CpuQuota": container.cpu_quota_us,
        "CpusetCpus": container.cpuset_cpus,
        "CpusetMems": container.cpuset_mems,
        "MemorySwappiness": container.memory_swappiness,
        "OomKillDisable": container.oom_kill_disable,
        "GroupAdd": list(container.groups),
        "Annotations": Free(container.annotations),
        "DeviceCgroupRules": list(apart.device_rules),
        "PidsLimit": container.pids,
        "BlkioWeight": container.blkio_weight,
        "OomScoreAdj": container.oom_score_adj,
        "ShmSize": container.shm_bytes,
        "StorageOpt": Free({"size": str(container.storage_bytes)} if container.storage_bytes else {}),
        "Ulimits": [{"Name": one.name, "Soft": one.soft, "Hard": one.hard} for one in container.ulimits],
        "Init": container.init,
        "AutoRemove": container.remove_on_exit,
        "ReadonlyRootfs": container.read_only,
        "Privileged": False,
        "CapAdd": list(container.capabilities),
        "SecurityOpt": [f"seccomp={apart.seccomp}"] if apart.seccomp == "unconfined" else [],
        "Sysctls": Free(apart.sysctls),
        "Devices": [
            {"PathOnHost": one.source, "PathInContainer": one.target, "CgroupPermissions": one.permissions}
            for one in apart.devices
        ],
        "PidMode": apart.pid,
        "IpcMode": apart.ipc or "private",
        "UTSMode": apart.uts,
        "UsernsMode": apart.user,
        "NetworkMode": container.network_mode or "bridge",
        "Dns": list(container.dns),
        "DnsSearch": list(container.dns_search),
        "DnsOptions": list(container.dns_options),
        "ExtraHosts": list(container.extra_hosts),
        "Binds": [f"{one.source}:{one.target}{':ro' if one.read_only else ''}" for one in binds],
        "Tmpfs": Free((one.target, ",".join(one.options)) for one in container.mounts if one.kind == "tmpfs"),
        "PortBindings": _bindings(container.ports),
        "RestartPolicy": {
            "Name": container.restart.name or "no",
            "MaximumRetryCount": container.restart.max_retries,
        },
        "LogConfig": {"Type": "local", "Config": Free(container.log_options)},
    }


def _ports(container: Container) -> Free:
    """Published ones with where they lead from, exposed ones without."""
    return Free({**dict.fromkeys(container.exposed), **_bindings(network.published(container))})


def _bindings(ports: Sequence[Port]) -> Free:
    found: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        place = {"HostIp": port.host_address or network.EVERY_ADDRESS, "HostPort": str(port.host_port or "")}
        found.setdefault(f"{port.container_port}/{port.protocol}", []).append(place)
    return Free(found)


def docker_status(container: Container) -> str:
    """ "Up 5 minutes (healthy)", "Exited (1) 2 hours ago", "Restarting (1) 3 seconds ago"."""
    if container.state in ("running", "paused", "frozen", "lost"):
        note = container.state if container.state != "running" else container.health_now.status
        note = {"paused": "Paused", "starting": "health: starting"}.get(note, note)
        return f"Up {tables.ago(container.started_unix_ns)}" + (f" ({note})" if note else "")
    if container.state in ("exited", "restarting"):
        code = "" if container.exit_code is None else f" ({container.exit_code})"
        return f"{container.state.capitalize()}{code} {tables.ago(container.finished_unix_ns)} ago"
    return container.state.capitalize()


def matches(container: Container, conditions: list[tuple[str, str]], everything: Sequence[Container] = ()) -> bool:
    """Of each key at least one value holds; of labels all. `everything`: for before and since, which name another container."""

    def holds(key: str, value: str) -> bool:
        if key == "name":
            return _found(value, container.name)
        if key in ("before", "since"):
            other = next((one for one in everything if one.name == value or one.id.startswith(value)), None)
            if other is None:
                return False
            mine, its = container.created_unix_ns, other.created_unix_ns
            return mine < its if key == "before" else mine > its
        if key == "volume":
            return any(value in (one.source, one.target) for one in container.mounts)
        if key == "label":
            name, equals, wanted = value.partition("=")
            return name in container.labels and (not equals or container.labels[name] == wanted)
        if key in ("image", "ancestor"):
            names = (container.image, container.image.partition(":")[0], container.image_digest)
            return value in names or value.removesuffix(":latest") == container.image
        return {
            "id": container.id.startswith(value),
            "status": container.state == value,
            "host": container.host == value,
            "exited": container.state == "exited" and str(container.exit_code) == value,
            "health": (container.health_now.status or "none") == value,
            "network": (container.network_mode or "bridge") == value,
        }[key]

    keys = {key for key, _ in conditions}
    return all((all if key == "label" else any)(holds(k, value) for k, value in conditions if k == key) for key in keys)


def _found(pattern: str, name: str) -> bool:
    """Docker's names are patterns, with a / before the name that people write with ^."""
    try:
        return re.search(pattern.replace("^/", "^", 1), name) is not None
    except re.error:
        return pattern in name
