"""Probes that change namespaces, mount, or play with memory: run in a process of their own, one probe each.

    python -I -S probe_child.py CHECKOUT NAME [ARGUMENT]

prints one JSON line {"ok": bool, "value": str}. Whatever it makes dies with its namespaces; the cgroup and the scratch
directory are removed at the end. Uses the engine's own system calls, so that it probes what the engine will do.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])  # -I keeps the script's folder and the environment out of sys.path

from agent.linux import fanotify, libc, mounts, namespaces

IDS_BASE, IDS_COUNT = 100_000, 65_536
PAGE = mmap.PAGESIZE
SOFT_DIRTY = 1 << 55  # of an entry in /proc/PID/pagemap
_SYS_USERFAULTFD = {"x86_64": 323, "aarch64": 282}
_UFFD_USER_MODE_ONLY = 1
_UFFDIO_API, _UFFDIO_REGISTER = 0xC018AA3F, 0xC020AA00
_UFFD_API = 0xAA
_UFFD_FEATURE_WP_UNPOPULATED, _UFFD_FEATURE_WP_ASYNC = 1 << 13, 1 << 15
_UFFDIO_REGISTER_MODE_WP = 2
_PAGEMAP_SCAN = 0xC0606610
_PM_SCAN_WP_MATCHING, _PM_SCAN_CHECK_WPASYNC = 1, 2
_PAGE_IS_WRITTEN = 2

_syscall = libc.declare("syscall", ctypes.c_long, ctypes.c_long, restype=ctypes.c_long)


def soft_dirty(_argument: str) -> tuple[bool, str]:
    """Clear the marks, write one of two pages, and see whether exactly that one is marked."""
    area, address = _two_pages()
    with area:
        Path("/proc/self/clear_refs").write_text("4")
        area[0] = 2
        with open("/proc/self/pagemap", "rb") as pagemap:
            pagemap.seek(address // PAGE * 8)
            first, second = struct.unpack("QQ", pagemap.read(16))
    if first & SOFT_DIRTY and not second & SOFT_DIRTY:
        return True, "pages written are marked"
    return False, "the kernel marks nothing" if not first & SOFT_DIRTY else "the kernel marks every page"


def userfaultfd_wp(_argument: str) -> tuple[bool, str]:
    """WP_ASYNC on our own memory, then PAGEMAP_SCAN before and after one write: exactly that page must be reported."""
    fd = _userfaultfd(_UFFD_USER_MODE_ONLY)
    features = _UFFD_FEATURE_WP_ASYNC | _UFFD_FEATURE_WP_UNPOPULATED
    try:
        fcntl.ioctl(fd, _UFFDIO_API, bytearray(struct.pack("QQQ", _UFFD_API, features, 0)))
    except OSError as exc:
        return False, f"the kernel does not know WP_ASYNC ({exc.strerror}): it is older than 6.7"
    area, address = _two_pages()
    with area, open("/proc/self/pagemap", "rb") as pagemap:
        request = struct.pack("QQQQ", address, 2 * PAGE, _UFFDIO_REGISTER_MODE_WP, 0)
        fcntl.ioctl(fd, _UFFDIO_REGISTER, bytearray(request))
        _scan_written(pagemap.fileno(), address)  # protects both pages
        area[PAGE] = 2
        written = _scan_written(pagemap.fileno(), address)
    if written == [(address + PAGE, address + 2 * PAGE)]:
        return True, "WP_ASYNC and PAGEMAP_SCAN report the page that was written"
    return False, f"PAGEMAP_SCAN reported {len(written)} areas, not the one page that was written"


def userfaultfd(_argument: str) -> tuple[bool, str]:
    """A descriptor that handles the kernel's faults too, as a lazy restore needs."""
    os.close(_userfaultfd(0))
    return True, f"yes; vm.unprivileged_userfaultfd={_unprivileged_userfaultfd()}"


def userfaultfd_userns(_argument: str) -> tuple[bool, str]:
    """The same from inside a user namespace, where a container's tasks make theirs while CRIU restores them lazily."""
    namespaces.setns(namespaces.userns_fd(IDS_BASE, IDS_COUNT), namespaces.CLONE_NEWUSER)
    sysctl = f"vm.unprivileged_userfaultfd={_unprivileged_userfaultfd()}"
    try:
        os.close(_userfaultfd(0))
    except PermissionError:
        return False, f"refused; {sysctl}"
    return True, f"yes; {sysctl}"


def user_namespaces(_argument: str) -> tuple[bool, str]:
    """Make one with the map of a container, enter it, and be root there."""
    namespaces.setns(namespaces.userns_fd(IDS_BASE, IDS_COUNT), namespaces.CLONE_NEWUSER)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    mapping = Path("/proc/self/uid_map").read_text().split()
    return mapping == ["0", str(IDS_BASE), str(IDS_COUNT)], f"ids {':'.join(mapping)}"


def overlayfs(directory: str) -> tuple[bool, str]:
    """Mount one whose layers lie in `directory`, write through it, delete a file of the lower layer."""
    with _scratch(directory) as top:
        merged = _overlay(top, str(top / "lower"))
        (merged / "new").write_text("x")
        (merged / "below").unlink()
        whiteout = (top / "upper" / "below").stat()
        mounts.umount(merged)
        good = (top / "upper" / "new").exists() and whiteout.st_rdev == 0 and whiteout.st_nlink >= 1
    return good, f"on {directory}" if good else f"mounted on {directory}, but its upper layer is not as it should be"


def idmapped_mounts(directory: str) -> tuple[bool, str]:
    """Shift a layer that lies in `directory` by a mount, see the shifted owner, and build an overlay on top of it."""
    with _scratch(directory) as top:
        os.chown(top / "lower" / "below", 7, 7)
        userns = namespaces.userns_fd(IDS_BASE, IDS_COUNT)
        shifted = top / "shifted"
        shifted.mkdir()
        clone = mounts.idmapped_clone(top / "lower", userns)
        mounts.move_mount(clone, shifted)
        os.close(clone)
        if (owner := (shifted / "below").stat().st_uid) != IDS_BASE + 7:
            return False, f"a file of id 7 shows id {owner}, not {IDS_BASE + 7}"
        merged = _overlay(top, str(shifted))
        owner = (merged / "below").stat().st_uid
        mounts.umount(merged)
        mounts.umount(shifted)
    return (
        owner == IDS_BASE + 7,
        f"on {directory}, below an overlay too" if owner == IDS_BASE + 7 else f"an overlay on top shows id {owner}",
    )


def file_events(directory: str) -> tuple[bool, str]:
    """Watch the file system of `directory` (fanotify), write through an overlay on it in the ways that are easily missed, and hear of
    each in its upper layer.
    """
    with _scratch(directory) as top:
        merged = _overlay(top, str(top / "lower"))
        (merged / "file").write_bytes(bytes(PAGE))
        group = fanotify.group()
        heard = fanotify.MODIFY | fanotify.CLOSE_WRITE | fanotify.ATTRIB | fanotify.CREATE
        fanotify.watch_file_system(group, heard, str(top / "upper"))
        upper = os.open(top / "upper", os.O_RDONLY | os.O_DIRECTORY)
        inode = (top / "upper" / "file").stat().st_ino

        def masks() -> int:
            """Of what was said of the file; events are there when the call is done."""
            found, said = 0, b""
            with contextlib.suppress(BlockingIOError):
                said = os.read(group, 1 << 20)
            for event in fanotify.events(said):
                if event.name == b"file" and event.file:
                    fd = fanotify.open_handle(upper, event.file, os.O_PATH)
                    found |= event.mask if os.fstat(fd).st_ino == inode else 0
                    os.close(fd)
            return found

        fd = os.open(merged / "file", os.O_RDWR)
        os.write(fd, b"x")
        written = masks() & fanotify.MODIFY
        area = mmap.mmap(fd, PAGE)
        os.close(fd)
        area[0] = 2
        area.close()  # the last that holds it
        let_go = masks() & fanotify.CLOSE_WRITE
        (merged / "file").chmod(0o600)
        changed = masks() & fanotify.ATTRIB
        os.close(upper)
        mounts.umount(merged)
    missed = [name for name, heard in (("write", written), ("a mapping", let_go), ("chmod", changed)) if not heard]
    return (
        not missed,
        f"nothing is heard of {', '.join(missed)} through an overlay" if missed else "every change is named",
    )


def cgroup_freezer(mountpoint: str) -> tuple[bool, str]:
    """Freeze a process in a cgroup of its own in the v2 hierarchy at `mountpoint`, see it stand, and kill it there."""
    group = Path(mountpoint) / f"migrate-probe-{os.getpid()}"
    group.mkdir()
    sleeper = subprocess.Popen(
        ["sleep", "60"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        (group / "cgroup.procs").write_text(str(sleeper.pid))
        (group / "cgroup.freeze").write_text("1")
        if not _becomes_true(lambda: "frozen 1" in (group / "cgroup.events").read_text()):
            return False, "cgroup.events does not say frozen 1"
        (group / "cgroup.kill").write_text("1")
        killed = _becomes_true(lambda: sleeper.poll() is not None)
        return killed, f"freezes and kills in {mountpoint}" if killed else "cgroup.kill kills nothing"
    finally:
        sleeper.kill()
        sleeper.wait()
        _becomes_true(lambda: "populated 0" in (group / "cgroup.events").read_text())
        group.rmdir()


def network(_argument: str) -> tuple[bool, str]:
    """In a network namespace of our own: a bridge, a veth pair on it, and a table of nftables' making."""
    namespaces.unshare(namespaces.CLONE_NEWNET)
    for command in (
        "ip link set lo up",
        "ip link add probe0 type bridge",
        "ip link add probe1 type veth peer name probe2",
        "ip link set probe1 master probe0",
        "ip link set probe2 up",
    ):
        _run(command.split())
    return True, "network namespace, bridge and veth work"


def nftables(_argument: str) -> tuple[bool, str]:
    """In a network namespace of our own: a table like the one CRIU locks the network with."""
    namespaces.unshare(namespaces.CLONE_NEWNET)
    _run(
        [
            "nft",
            "add table inet probe; add chain inet probe output { type filter hook output priority 0; policy drop; }",
        ]
    )
    listed = _run(["nft", "list", "tables"])
    return "table inet probe" in listed, _run(["nft", "--version"]).strip()


def huge_tmpfs(_argument: str) -> tuple[bool, str]:
    """Mount a tmpfs with huge=always and look whether a file in it is backed by huge pages."""
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.make_private(Path("/"))
    target = Path(tempfile.mkdtemp(prefix="migrate-probe-"))
    try:
        mounts.mount("probe", target, "tmpfs", 0, "size=16m,huge=always")
        try:
            before = _shmem_huge_kb()
            (target / "file").write_bytes(b"x" * (8 << 20))
            after = _shmem_huge_kb()
        finally:
            mounts.umount(target)
    finally:
        target.rmdir()
    return (
        after > before,
        "huge=always gives huge pages" if after > before else "huge=always is accepted but gives no huge page",
    )


def _two_pages() -> tuple[mmap.mmap, int]:
    """Two private anonymous pages, present and written once, and their address."""
    area = mmap.mmap(-1, 2 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area[0] = area[PAGE] = 1
    return area, ctypes.addressof(ctypes.c_char.from_buffer(area))


def _userfaultfd(flags: int) -> int:
    number = _SYS_USERFAULTFD.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, f"no system call number of userfaultfd for {os.uname().machine} here")
    return _syscall(number, os.O_CLOEXEC | os.O_NONBLOCK | flags)


def _scan_written(pagemap: int, address: int) -> list[tuple[int, int]]:
    """Areas of the two pages written since the last scan, as (start, end); protects them again."""
    regions = bytearray(3 * 24)
    pointer = ctypes.addressof(ctypes.c_char.from_buffer(regions))
    flags = _PM_SCAN_WP_MATCHING | _PM_SCAN_CHECK_WPASYNC
    request = struct.pack(
        "12Q", 96, flags, address, address + 2 * PAGE, 0, pointer, 3, 0, 0, _PAGE_IS_WRITTEN, 0, _PAGE_IS_WRITTEN
    )
    count = fcntl.ioctl(pagemap, _PAGEMAP_SCAN, bytearray(request))
    return [struct.unpack_from("QQ", regions, 24 * index) for index in range(count)]


def _unprivileged_userfaultfd() -> str:
    try:
        return Path("/proc/sys/vm/unprivileged_userfaultfd").read_text().strip()
    except OSError:
        return "absent"


class _scratch:  # noqa: N801  # used as a function
    """A directory with `lower/below`, `upper`, `work`, `merged`, in a private mount namespace; gone at the end."""

    def __init__(self, directory: str) -> None:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mounts.make_private(Path("/"))
        self.top = Path(tempfile.mkdtemp(prefix=".migrate-probe-", dir=directory))

    def __enter__(self) -> Path:
        for name in ("lower", "upper", "work", "merged"):
            (self.top / name).mkdir()
        (self.top / "lower" / "below").write_text("x")
        return self.top

    def __exit__(self, *_: object) -> None:
        for name in ("merged", "shifted"):
            if mounts.is_mounted(self.top / name):
                mounts.umount(self.top / name, mounts.MNT_DETACH)
        shutil.rmtree(self.top)


def _overlay(top: Path, lower: str) -> Path:
    merged = top / "merged"
    mounts.overlay(merged, lower=[lower], upper=str(top / "upper"), work=str(top / "work"), options=[("xino", "off")])
    return merged


def _becomes_true(condition: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def _run(argv: list[str]) -> str:
    environment = {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(errno.EIO, f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def _shmem_huge_kb() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("ShmemHugePages:"):
            return int(line.split()[1])
    return 0


PROBES: dict[str, Callable[[str], tuple[bool, str]]] = {
    "file-events": file_events,
    "soft-dirty": soft_dirty,
    "userfaultfd-wp": userfaultfd_wp,
    "userfaultfd": userfaultfd,
    "userfaultfd-userns": userfaultfd_userns,
    "user-namespaces": user_namespaces,
    "overlayfs": overlayfs,
    "idmapped-mounts": idmapped_mounts,
    "cgroup-freezer": cgroup_freezer,
    "network": network,
    "nftables": nftables,
    "huge-tmpfs": huge_tmpfs,
}


def main(argv: list[str]) -> int:
    """Run the probe argv[2] with the argument argv[3]; the answer is the line on stdout, not the exit status."""
    signal.alarm(110)  # a probe that hangs must not outlive who asked (probe.py); one that is slow may be slow
    try:
        ok, value = PROBES[argv[2]](argv[3] if len(argv) > 3 else "")
    except OSError as exc:
        ok, value = False, exc.strerror or str(exc)
    sys.stdout.write(json.dumps({"ok": ok, "value": value}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
