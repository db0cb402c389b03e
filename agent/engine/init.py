"""Stage and init: from the monitor's fork to the container's first program, step by named step.

The stage makes the namespaces that need nothing of the container (user, pid, network, ...), ahead of need as a rule. Told the container's
cgroup it forks init into it, which is pid 1 of the container. That makes its mounts, waits until the network is there, and becomes
the program. `sync.py` has the conversation with the monitor, `monitor_start.py` what the monitor does for init from the host's side.

Nobody moves init into its cgroups: it is born in that of version 2, and puts itself into those of version 1. Somebody else's move of it
waits until every CPU has passed through the scheduler, 10 to 17 ms.

Every mount here must be one that CRIU can dump and restore in a user namespace; docs/adr/0003-container-mounts.md
says what was tried. Those that come from the host are listed by `external_mounts`, for CRIU must be told the same
list at both ends. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, NotRequired, TypedDict

from agent.engine import program, sync, terminal
from agent.engine.program import step
from agent.linux import clone, mounts, namespaces

DEVICES = ("full", "null", "random", "tty", "urandom", "zero")
LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)

# Only what every kernel has: a mount point that the target of a move lacks could not be restored there. What else
# Docker masks is closed to a user namespace anyway (adr 0003; tests/system/test_init_isolation.py opens all of it).
MASKED_FILES = ("/proc/interrupts", "/proc/keys", "/proc/timer_list")
MASKED_DIRECTORIES = ("/sys/firmware",)
EMPTY_DIRECTORY = "/sys/fs/cgroup"  # of the container's own sysfs: nothing from the host is needed to mask with
# More for one whose root is the host's by its id: of these files some are closed by nothing but their owner. They are not in every
# kernel, so such a container moves only between hosts that have the same of them.
HOST_MASKED_FILES = ("/proc/kcore", "/proc/latency_stats", "/proc/sched_debug")
HOST_MASKED_DIRECTORIES = ("/proc/acpi", "/proc/asound", "/proc/scsi", "/sys/devices/virtual/powercap")
HOST_READ_ONLY = ("/proc/sysrq-trigger",)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys")

AHEAD = (  # what the stage makes; the mount namespace comes last, for it must have the container's root
    namespaces.CLONE_NEWUSER
    | namespaces.CLONE_NEWUTS
    | namespaces.CLONE_NEWIPC
    | namespaces.CLONE_NEWPID
    | namespaces.CLONE_NEWNET
)
_SHARED = {"pid": namespaces.CLONE_NEWPID, "ipc": namespaces.CLONE_NEWIPC, "uts": namespaces.CLONE_NEWUTS}
_SAFE = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC
_TMPFS_FLAGS = {
    "nosuid": mounts.MS_NOSUID,
    "nodev": mounts.MS_NODEV,
    "noexec": mounts.MS_NOEXEC,
    "ro": mounts.MS_RDONLY,
}


class Plan(TypedDict):
    """What a container is on this host. JSON; every path is the host's."""

    root: str  # where rootfs.mount_root() mounted the overlay; the directories above it may be closed to others
    ids_base: int  # first host id
    ids_count: int
    hostname: str
    domainname: NotRequired[str]  # "" = none
    argv: list[str]
    env: list[str]  # "KEY=value"
    cwd: str
    user: str
    groups: NotRequired[list[str]]  # besides the user's
    umask: NotRequired[int]
    capabilities: list[str]  # "CAP_CHOWN"; the bounding set
    tty: bool  # stdio is a terminal of the container's own devpts
    rlimits: dict[str, list[int]]  # "RLIMIT_NOFILE": [soft, hard]
    oom_score_adj: int  # -1000 to 1000
    shm_bytes: int  # size of /dev/shm
    tasks: list[str]  # of its cgroups of version 1: the files into which it puts itself
    shared: NotRequired[list[str]]  # of "pid", "ipc", "uts": the host's, not its own
    host_users: NotRequired[bool]  # its ids are the host's
    devices: NotRequired[list[dict[str, str]]]  # "source" on the host, "target" in the container
    seccomp: NotRequired[str]  # a file with the program of the filter; "" = none
    new_privileges: NotRequired[bool]
    binds: NotRequired[list[dict[str, Any]]]  # mounted in the root already: agent/engine/local.py
    scratch: NotRequired[list[dict[str, Any]]]
    read_only: NotRequired[bool]  # the root; what is mounted in it may be writable
    host_network: NotRequired[bool]
    secrets: NotRequired[list[dict[str, Any]]]  # agent/engine/secret_files.py


def external_mounts(further: Iterable[tuple[str, str]] = ()) -> list[tuple[str, str, str]]:
    """Every mount that comes from the host: (mount point in the container, key, source on the host), on every host
    the same. `further`: (source, target) of the container's own devices.

    For CRIU: `mnt[MOUNT POINT]:KEY` at dump, `mnt[KEY]:SOURCE` at restore.
    """
    devices = [(f"/dev/{name}", f"dev-{name}", f"/dev/{name}") for name in DEVICES]
    devices += [(target, "device" + target.replace("/", "-"), source) for source, target in further]
    return devices + [(path, "mask" + path.replace("/", "-"), "/dev/null") for path in MASKED_FILES + HOST_MASKED_FILES]


def stage_flags(plan: Mapping[str, Any]) -> int:
    """CLONE_NEW* of what the stage has to make for this container: by the plan's `shared` and `host_network`."""
    shared = namespaces.CLONE_NEWNET if plan.get("host_network") else 0
    for name in plan.get("shared", ()):
        shared |= _SHARED[name]
    return AHEAD & ~shared


def run_stage(channel: socket.socket, flags: int) -> NoReturn:
    """Leave the host and, when told, start init; runs in a child that the (single-threaded) monitor forked, and never returns.

    `channel` is the child's end of a SOCK_SEQPACKET pair; cgroup and plan come by it. `flags`: of stage_flags().
    """
    try:
        try:
            with step("session"):
                program.close_others(channel.fileno())  # the monitor's connections end with the monitor
                os.setsid()
                signal.pthread_sigmask(signal.SIG_SETMASK, ())
            with step("unshare"):
                namespaces.unshare(flags)
            sync.send(channel, {"type": "waiting"})
            cgroup = _take_cgroup(channel)
            with step("cgroup"):
                pid = clone.fork_into(cgroup)
            if pid:
                sync.send(channel, {"type": "created", "pid": pid})
                os._exit(0)
            _run_init(channel)
        except program.StepError as exc:
            sync.send_error(channel, exc.step, exc)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as exc:  # a plan that is not one
            sync.send(channel, {"type": "error", "step": "plan", "errno": errno.EINVAL, "text": repr(exc)})
    finally:
        os._exit(1)  # whatever happened: a child never returns into the monitor's code


def _run_init(channel: socket.socket) -> NoReturn:
    with step("session"):
        os.setsid()  # CRIU wants the container's first process to lead a session
    plan, root, stdio = _take_plan(channel)
    with step("seccomp"):
        seccomp_filter = program.read_filter(plan)  # the file is the host's root's, which we still are to it
    with step("secrets"):
        secrets = [(one, Path(one["source"]).read_bytes()) for one in plan.get("secrets", ())]  # as these are
    with step("cgroup"):
        tasks = [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in plan["tasks"]]  # as these are
    with step("userns"):
        os.setgroups(())
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    with step("root"):
        os.fchdir(root)  # the way there is closed to the container's root; the working directory comes along
        os.close(root)
    with step("unshare"):
        namespaces.unshare(namespaces.CLONE_NEWNS)
    _mount_all(plan)
    with step("secrets"):
        for one, data in secrets:
            _put_secret(one, data)
    with step("hostname"):
        if "uts" not in plan.get("shared", ()):
            socket.sethostname(plan["hostname"])
            if plan.get("domainname"):
                namespaces.setdomainname(plan["domainname"])
    masters = []
    if plan["tty"]:
        with step("terminal"):
            master, slave = terminal.make()
        masters, stdio = [master], (slave, slave, slave)
    prepared = program.prepare(program.Program.of(plan, seccomp_filter))  # while the agent makes the network
    with step("cgroup"):
        for fd in tasks:
            os.write(
                fd, b"0"
            )  # "me": of the writer alone, and only of it, the kernel knows that it neither forks nor exits
            os.close(fd)
    sync.send(channel, {"type": "ready"}, masters)
    for fd in masters:
        os.close(fd)
    with step("start"):
        _wait_for(channel, "start")
    with step("unshare"):
        namespaces.unshare(namespaces.CLONE_NEWCGROUP)  # we are in the container's by now: its root is ours
    with step("stdio"):
        program.take_stdio(stdio, tty=plan["tty"])
        program.close_others(channel.fileno())
    program.become(prepared)


def _take_cgroup(channel: socket.socket) -> Path:
    message = sync.receive(channel)[0]
    if message is None:
        os._exit(0)  # nobody needed us
    return Path(message["cgroup"])


def _take_plan(channel: socket.socket) -> tuple[Plan, int, tuple[int, int, int]]:
    """With the descriptors that come along: the root, and the program's stdio, of no use with plan["tty"]."""
    message, fds = sync.receive(channel)
    if message is None:
        os._exit(0)  # nobody needed us
    root, *stdio = fds
    return message["plan"], root, (stdio[0], stdio[1], stdio[2])


def _mount_all(plan: Plan) -> None:
    """Make the container's mounts on its root, which is the working directory, and make that the root."""
    receiving = any(bind.get("propagation") in ("slave", "shared") for bind in plan.get("binds", ()))
    with step("propagation"):
        (mounts.make_slave if receiving else mounts.make_private)(Path("/"))
    with step("root"):
        # pivot_root wants a mount that this namespace made itself; what is mounted in the root comes along.
        own = mounts.open_tree(Path(), mounts.OPEN_TREE_CLONE | (mounts.AT_RECURSIVE if plan.get("binds") else 0))
        mounts.move_mount(own, Path())
        os.fchdir(own)
        os.close(own)
    with step("proc"):
        if "pid" in plan.get("shared", ()):  # only the owner of a pid namespace may mount it anew
            mounts.bind(Path("/proc"), Path("proc"))
        else:
            mounts.mount("proc", Path("proc"), "proc", _SAFE)
    with step("sys"):
        if plan.get("host_network"):  # sysfs shows a network namespace: only its owner may mount it
            mounts.mount("sys", Path("sys"), "tmpfs", _SAFE | mounts.MS_RDONLY, "size=0,mode=555")
        else:
            mounts.mount("sysfs", Path("sys"), "sysfs", _SAFE | mounts.MS_RDONLY)
    with step("dev"):
        _mount_dev(Path("dev"), plan["shm_bytes"], host_shm="ipc" in plan.get("shared", ()))
        # Attached when this is the root: then no link of the image leads out of it.
        devices = [(mounts.open_tree(Path(one["source"])), Path(one["target"])) for one in plan.get("devices", ())]
    with step("mask"):
        for path in MASKED_FILES + (HOST_MASKED_FILES if plan.get("host_users") else ()):
            _bind_over(Path("/dev/null"), path)
        for path in MASKED_DIRECTORIES + (HOST_MASKED_DIRECTORIES if plan.get("host_users") else ()):
            if Path(_inside(EMPTY_DIRECTORY)).exists():
                _bind_over(Path(_inside(EMPTY_DIRECTORY)), path)
            elif Path(_inside(path)).exists():  # in the host's network, where /sys is empty
                mounts.mount("tmpfs", Path(_inside(path)), "tmpfs", _SAFE | mounts.MS_RDONLY, "size=0")
    with step("read-only"):
        for path in READ_ONLY + (HOST_READ_ONLY if plan.get("host_users") else ()):
            if _bind_over(Path(_inside(path)), path):
                mounts.remount_bind(Path(_inside(path)), _SAFE | mounts.MS_RDONLY)
    with step("pivot_root"):
        mounts.pivot_root(Path())
    with step("device"):
        for fd, place in devices:
            place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            place.touch()
            mounts.move_mount(fd, place)
            os.close(fd)
    with step("tmpfs"):
        for one in plan.get("scratch", ()):  # paths are the container's now: links lead nowhere else
            _mount_scratch(one)
    with step("propagation"):
        if receiving:
            _receive_only_what_is_asked_for(plan)
    with step("read-only root"):
        if plan.get("read_only"):
            _make_root_read_only(plan["cwd"])


def _mount_dev(dev: Path, shm_bytes: int, *, host_shm: bool) -> None:
    mounts.mount("tmpfs", dev, "tmpfs", mounts.MS_NOSUID, "mode=755,size=65536k")
    for name in DEVICES:  # a user namespace may not make devices: those of the host are bound
        (dev / name).touch()
        mounts.bind(Path("/dev") / name, dev / name, recursive=False)
    for directory in ("pts", "shm"):
        (dev / directory).mkdir()
    mounts.mount(
        "devpts",
        dev / "pts",
        "devpts",
        mounts.MS_NOSUID | mounts.MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=0620,gid=5",
    )
    if host_shm:
        mounts.bind(Path("/dev/shm"), dev / "shm")  # noqa: S108  the host's, as asked for
    else:
        mounts.mount("tmpfs", dev / "shm", "tmpfs", _SAFE, f"mode=1777,size={shm_bytes}")
    (dev / "ptmx").symlink_to("pts/ptmx")
    for name, to in LINKS:
        (dev / name).symlink_to(to)


def tmpfs_flags(names: Iterable[str]) -> int:
    """MS_* of the plan's names of them."""
    flags = 0
    for name in names:
        flags |= _TMPFS_FLAGS[name]
    return flags


def _mount_scratch(one: dict[str, Any]) -> None:
    place = Path(one["target"])
    place.mkdir(mode=0o755, parents=True, exist_ok=True)
    flags = tmpfs_flags(one.get("flags", ("nosuid", "nodev")))
    data = [f"mode={one.get('mode', 0o1777):o}", *one.get("data", ())]
    if one["size_bytes"]:
        data.append(f"size={one['size_bytes']}")
    mounts.mount("tmpfs", place, "tmpfs", flags, ",".join(data))


def _put_secret(one: dict[str, Any], data: bytes) -> None:
    """Its directory is a tmpfs that was mounted just now."""
    path = Path(one["target"])
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fchown(fd, one["uid"], one["gid"])
        os.fchmod(fd, one["mode"])


def _receive_only_what_is_asked_for(plan: Plan) -> None:
    """All came as slaves of the host's mounts, for else those that are to be could not become it."""
    private = [bind["target"] for bind in plan["binds"] if bind.get("propagation") not in ("slave", "shared")]
    for path in ("/", *private):
        mounts.mount(None, Path(path), None, mounts.MS_PRIVATE)


def _make_root_read_only(cwd: str) -> None:
    with contextlib.suppress(FileExistsError):  # the program's own step says it better
        Path(cwd or "/").mkdir(mode=0o755, parents=True, exist_ok=True)
    top = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        mounts.mount_setattr(top, attr_set=mounts.MOUNT_ATTR_RDONLY)
    finally:
        os.close(top)


def _bind_over(source: Path, path: str) -> bool:
    """Bind `source` on the container's `path`; False where an exotic kernel has no such path."""
    target = Path(_inside(path))
    if not target.exists():
        return False
    mounts.bind(source, target, recursive=False)
    return True


def _inside(path: str) -> str:
    return path.removeprefix("/")  # the working directory is the container's root


def _wait_for(channel: socket.socket, kind: str) -> None:
    try:
        sync.expect(channel, kind)
    except sync.ProtocolError as exc:
        raise OSError(errno.EPROTO, str(exc)) from exc
