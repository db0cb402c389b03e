"""What a container's tasks look like from outside: memory, files that change without a trace, what keeps it from moving. Read-only."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.engine.spec import ContainerSpec, Network
from agent.linux import mounts, openat2
from agent.scan.finding import Blocker
from agent.storage import tree_scan

_USUAL_DEVICES = {(1, minor) for minor in (3, 5, 7, 8, 9, 11)} | {(5, minor) for minor in (0, 1, 2)}
_TERMINALS = (4, *range(136, 144))  # what of these is in the way is said by its name


def memory_bytes(pids: Iterable[int]) -> int:
    """Resident anonymous and shared memory; file pages come with the layers."""
    total = 0
    for pid in pids:
        for line in _read(Path(f"/proc/{pid}/status")).splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                total += int(line.split()[1]) * 1024
    return total


def of_network(network: Network) -> list[Blocker]:
    """What its network keeps from moving."""
    if network.mode != "host":
        return []
    return [
        Blocker(
            check="host-namespace",
            what="it uses the host's network (--network host): its addresses and connections are the host's and stay there",
            remedy="run it with --network bridge, publish its ports with -p",
        )
    ]


def blockers(init_pid: int, pids: Iterable[int]) -> list[Blocker]:
    """What CRIU cannot save, found by pid and descriptor."""
    found: list[Blocker] = []
    members = set(pids)
    for pid in sorted(members - {init_pid}):
        above = parent(pid)
        if above and above not in members:  # 0: it has ended since
            found.append(
                Blocker(
                    check="exec",
                    pid=pid,
                    what="a process that came in by exec is not init's child: CRIU would lose it",
                    where=f"pid {pid} ({_read(Path(f'/proc/{pid}/comm')).strip()})",
                    remedy="end the exec session and move again",
                )
            )
    for pid in sorted(members):
        for name, target in _descriptors(pid):
            if target == "/dev/tty" and not _leads_its_terminal(pid):
                found.append(
                    Blocker(
                        check="terminal",
                        pid=pid,
                        descriptor=name,
                        path=target,
                        what="/dev/tty is open while another job than its own is in the foreground: CRIU cannot save that",
                        where=f"pid {pid} ({_read(Path(f'/proc/{pid}/comm')).strip()}), descriptor {name}",
                        remedy="wait until the shell is at its prompt again, or stop the job there (ctrl-z)",
                    )
                )
            if device := _foreign_device(pid, name):
                found.append(
                    Blocker(
                        check="device-open",
                        pid=pid,
                        descriptor=name,
                        path=target,
                        what=f"the device {target} ({device}) is open: what it is doing is in the host's hardware and drivers",
                        where=f"pid {pid} ({_read(Path(f'/proc/{pid}/comm')).strip()}), descriptor {name}",
                        remedy="end that program, or let it close the device",
                    )
                )
            if "io_uring" in target:
                found.append(
                    Blocker(
                        check="io-uring",
                        pid=pid,
                        descriptor=name,
                        path=target,
                        what="io_uring",
                        where=f"pid {pid}, descriptor {name}",
                        remedy="switch io_uring off in the program",
                    )
                )
    return found


def of_mounts(
    spec: ContainerSpec, used_by: Callable[[str], Iterable[ContainerSpec]], shared: Set[str]
) -> list[Blocker]:
    """What of its mounts keeps it from moving. `used_by`: the containers here that have a volume; `shared`: volumes that need not move."""
    found: list[Blocker] = []
    for mount in spec.mounts:
        if mount.kind == "bind" and mount.propagation.removeprefix("r") in ("slave", "shared"):
            what = f"its bind mount at {mount.target} receives mounts of this host ({mount.propagation}): those cannot go along"
            found.append(
                Blocker(check="propagation", what=what, where=spec.name, remedy="run it without that propagation")
            )
    for name in dict.fromkeys(mount.source for mount in spec.mounts if mount.kind == "volume"):
        others = sorted(user.name for user in used_by(name) if user.id != spec.id)
        if others and name not in shared:
            found.append(
                Blocker(
                    check="shared-volume",
                    what=f"volume {name} is used by {', '.join(others)} too: it cannot be on two hosts",
                    where=spec.name,
                    remedy=f"remove {others[0]} first, or use a volume that every host has: migrate volume create --shared PATH NAME",
                )
            )
    return found


def tmpfs_bytes(init_pid: int) -> int:
    """In the container's file systems in memory: CRIU carries that with its images."""
    total = 0
    try:
        top = os.open(f"/proc/{init_pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return 0  # it has ended
    try:
        for line in _read(Path(f"/proc/{init_pid}/mountinfo")).splitlines():
            before, _, after = line.partition(" - ")
            if after.split(" ", 1)[0] != "tmpfs":
                continue
            try:
                fd = openat2.open_in_root(top, os.fsencode(mounts.unescape(before.split(" ")[4])), os.O_RDONLY)
            except OSError:
                continue  # under another mount, or gone
            try:
                disk = os.fstatvfs(fd)
                total += (disk.f_blocks - disk.f_bfree) * disk.f_frsize
            finally:
                os.close(fd)
    finally:
        os.close(top)
    return total


@dataclass(frozen=True, kw_only=True)
class Held:
    """(device, inode) of files that tasks can still write to. `unseen`: what they wrote may have changed no time: mapped shared and
    opened for writing, whatever the mapping allows now, or open for writing in a task with AIO contexts. `open`: for writing; a kernel
    need not say what was spliced into them.
    """

    unseen: list[tuple[int, int]]
    open: list[tuple[int, int]]


def held_in_trees(pids: Iterable[int], roots: Sequence[object]) -> list[dict[str, Any]]:
    """For each of the trees that go with a container, its writable layer first, as the sender takes it. The tasks stand still."""
    found = [held_in_layer(pids, Path(str(roots[0])))]
    if len(roots) > 1:
        found += [held_in_volumes(pids)] * (len(roots) - 1)
    return [asdict(each) for each in found]


def held_in_volumes(pids: Iterable[int]) -> Held:
    """As a volume numbers them, or a tmpfs: an overlay would not."""
    unseen: set[tuple[int, int]] = set()
    opened: set[tuple[int, int]] = set()
    for pid in pids:
        for _, status, silent in _held_by(pid):
            (unseen if silent else opened).add((status.st_dev, status.st_ino))
    return Held(unseen=sorted(unseen), open=sorted(opened - unseen))


def held_in_layer(pids: Iterable[int], upper: Path) -> Held:
    """As `upper` numbers them. The tasks stand still. A file whose name is gone is looked for among all names; where that is not certain,
    more inodes than one are returned for it, never none. Raises OSError, StorageError.
    """
    unseen: set[tuple[int, int]] = set()
    opened: set[tuple[int, int]] = set()
    unnamed_files: set[tuple[int, int]] = set()
    for pid in pids:
        for link, status, silent in _held_by(pid):
            unnamed = False
            try:
                name = os.readlink(link)  # noqa: PTH115  it need not be a path
                unnamed = name.endswith(" (deleted)")
                there = (upper / name.lstrip("/")).lstat()
                (unseen if silent else opened).add((there.st_dev, there.st_ino))
            except OSError as exc:
                # Else it is not in the writable layer: a device, or shared memory.
                unnamed = unnamed or exc.errno == errno.ENAMETOOLONG
            if unnamed and status.st_nlink:
                unnamed_files.add((status.st_size, status.st_nlink))
    unseen |= _like(unnamed_files, upper)
    return Held(unseen=sorted(unseen), open=sorted(opened - unseen))


def _held_by(pid: int) -> Iterator[tuple[Path, os.stat_result, bool]]:
    """Regular files: a link of /proc, the file, and whether it is of Held.unseen. `maps` writes a newline as \\012, and a backslash as
    itself: only the link has the name.
    """
    asynchronous = False
    for line in _read(Path(f"/proc/{pid}/maps")).splitlines():
        fields = line.split(None, 5)
        if len(fields) < 6 or not fields[5].startswith("/"):
            continue
        asynchronous = asynchronous or fields[5].startswith("/[aio]")
        if fields[1][3] != "s":
            continue
        first, _, last = fields[0].partition("-")
        yield from _writable(Path(f"/proc/{pid}/map_files/{int(first, 16):x}-{int(last, 16):x}"), silent=True)
    for name, target in _descriptors(pid):
        if target.startswith("/"):
            yield from _writable(Path(f"/proc/{pid}/fd/{name}"), silent=asynchronous)


def _writable(link: Path, *, silent: bool) -> Iterator[tuple[Path, os.stat_result, bool]]:
    """The link's own mode is how the file was opened."""
    try:
        if link.lstat().st_mode & stat.S_IWUSR and stat.S_ISREG((status := link.stat()).st_mode):
            yield link, status, silent
    except FileNotFoundError:
        return  # the task is gone


def _like(wanted: set[tuple[int, int]], upper: Path) -> set[tuple[int, int]]:
    """Files in `upper` with one of these sizes and numbers of names. What the overlay says of a file's inode number is
    not always the upper file's, but these are.
    """
    if not wanted:
        return set()
    directories = tree_scan.Directories(upper)
    try:
        found = tree_scan.scan(directories, {}, itertools.count(2).__next__, frozen=False).found.values()
    finally:
        directories.close()
    statuses = (one.status for one in found if stat.S_ISREG(one.status.st_mode))
    return {(each.st_dev, each.st_ino) for each in statuses if (each.st_size, each.st_nlink) in wanted}


def parent(pid: int) -> int:
    for line in _read(Path(f"/proc/{pid}/status")).splitlines():
        if line.startswith("PPid:"):
            return int(line.split()[1])
    return 0


def _foreign_device(pid: int, descriptor: str) -> str:
    """ "c 10:229" of a device that CRIU cannot save; "" for the usual ones and everything else."""
    try:
        status = Path(f"/proc/{pid}/fd/{descriptor}").stat()
    except OSError:
        return ""  # closed, or the task is gone
    kind = "c" if stat.S_ISCHR(status.st_mode) else "b" if stat.S_ISBLK(status.st_mode) else ""
    major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    usual = kind == "c" and (major in _TERMINALS or (major, minor) in _USUAL_DEVICES)
    return f"{kind} {major}:{minor}" if kind and not usual else ""


def _leads_its_terminal(pid: int) -> bool:
    """Whether the leader of the session of `pid` is in the foreground of its terminal: what criu/tty.c, tty_verify_ctty, asks for."""
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return len(fields) < 6 or fields[3] == fields[5]  # session and tpgid


def _descriptors(pid: int) -> Iterable[tuple[str, str]]:
    try:
        for path in Path(f"/proc/{pid}/fd").iterdir():
            yield path.name, str(os.readlink(path))  # noqa: PTH115  Path.readlink would parse "anon_inode:[...]"
    except OSError:
        return  # the task is gone


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
