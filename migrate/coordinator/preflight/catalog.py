"""Every check by its name, and which of them an operator may overrule with `--skip`. docs/check.md has the same table."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from migrate.errors import InvalidArgument


@dataclass(frozen=True, kw_only=True)
class Check:
    """`skippable`: a move in spite of it is undone at worst; what is not would lose something, or could not even begin."""

    name: str
    about: str
    skippable: bool = True


CHECKS = {
    check.name: check
    for check in (
        # Both hosts.
        Check(name="protocol", about="both agents speak the protocol of the coordinator", skippable=False),
        Check(name="architecture", about="both hosts have the same kind of processor", skippable=False),
        Check(name="criu", about="the target's CRIU reads the images of the source's"),
        Check(name="capability", about="all that `migrate doctor` calls required works on both hosts"),
        Check(name="kernel", about="the target's kernel is not older"),
        Check(name="feature", about="what the source's kernel can do and the container may use, the target's can too"),
        Check(name="cpu-features", about="the target's processors have the instructions of the source's"),
        Check(name="cgroup", about="both hosts have the same version of cgroups"),
        Check(name="lsm", about="what confines the container's processes is there on the target"),
        Check(name="memory", about="the target has room for the container's memory"),
        Check(name="disk", about="the target has room for its files and for the image layers that it lacks"),
        Check(name="cpuset", about="the target has the processors that the container is bound to"),
        Check(name="subnet", about="the container's address and gateway are of the target's bridge"),
        Check(name="mtu", about="the target's bridge takes frames as long as the container sends"),
        Check(name="clock", about="both hosts' clocks agree"),
        Check(name="tunnel", about="the source reaches the target by ssh, as a move does"),
        # What is on the target already, and what it lacks.
        Check(name="present", about="the target has no container of that id", skippable=False),
        Check(name="name", about="no other container there has the name", skippable=False),
        Check(name="address", about="nothing there has the address", skippable=False),
        Check(name="mac", about="nothing there has the MAC", skippable=False),
        Check(name="port", about="the ports that it publishes are free there", skippable=False),
        Check(name="bind-source", about="the sources of its bind mounts are there", skippable=False),
        Check(name="volume", about="its volumes can come", skippable=False),
        Check(name="device", about="its devices are there", skippable=False),
        # How the container was made.
        Check(name="state", about="it runs", skippable=False),
        Check(name="host-namespace", about="it shares no namespace with the host", skippable=False),
        Check(name="propagation", about="its bind mounts receive no mounts of the host", skippable=False),
        Check(name="shared-volume", about="no other container here uses its volumes", skippable=False),
        # What its processes have open.
        Check(name="exec", about="no process came in by exec", skippable=False),
        Check(name="terminal", about="no job at its terminal is in the foreground"),
        Check(name="device-open", about="no process has a device of the host open"),
        Check(name="io-uring", about="no process uses io_uring"),
        Check(name="perf-event", about="no process has a performance counter open"),
        Check(name="userfaultfd", about="no process handles its own page faults"),
        Check(name="kernel-object", about="no process has a kernel object open that CRIU has no way for"),
        Check(name="memfd-secret", about="no process keeps memory that nobody may read"),
        Check(name="ptrace", about="no process is traced"),
        Check(
            name="nested-namespace",
            about="no process below init has pid, IPC, user, time, cgroup or UTS namespaces of its own",
        ),
        Check(name="unix-peer", about="no unix socket is connected to a program outside"),
        Check(name="mptcp", about="no socket of Multipath TCP"),
        Check(name="socket-kind", about="no socket of a kind that CRIU does not know (vsock, XDP, SCTP, AF_ALG)"),
        Check(name="raw-socket", about="no raw, packet or ping socket"),
        Check(name="half-open", about="no connection waits to be accepted"),
        Check(name="pty-peer", about="no terminal whose other end is outside"),
        Check(name="inotify-overlay", about="no watch on a file of the container's root"),
        Check(name="file-lock", about="nobody outside has a lock on a file that the container has open"),
        Check(name="deleted-file", about="no large file is deleted and still open"),
        Check(name="deleted-mapping", about="no large file is deleted and still mapped"),
        Check(name="tmpfs", about="no large tmpfs that does not go ahead as files"),
        Check(name="sysv-ipc", about="no SysV segment of the host is mapped"),
    )
}
UNKNOWN = Check(name="host", about="what an agent of another version found", skippable=False)


def find(name: str) -> Check:
    """That of another version's agent may have a name that is not known here: it cannot be overruled."""
    return CHECKS.get(name, UNKNOWN)


def checked_skips(names: Iterable[str]) -> tuple[str, ...]:
    """Sorted, each once. Raises InvalidArgument for a name that is no check's, and for one that may not be skipped."""
    wanted = tuple(sorted(set(names)))
    for name in wanted:
        if name not in CHECKS:
            close = difflib.get_close_matches(name, CHECKS, n=3)
            hint = (
                f"did you mean: {', '.join(close)}" if close else "the names are in docs/check.md, and in every report"
            )
            raise InvalidArgument(f"no check {name!r}", hint=hint)
        if not CHECKS[name].skippable:
            raise InvalidArgument(
                f"check {name!r} cannot be skipped: {CHECKS[name].about}, or there is no move",
                hint="do what the report says: migrate check CONTAINER --to HOST",
            )
    return wanted
