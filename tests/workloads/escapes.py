"""Attempts to get out of a container, each the way of a known hole; what each met is told as JSON, by name: "" = it worked.

    escapes.py once FACTS      all of them once, to stdout. FACTS: JSON with what lies outside: "pid", "key", "abstract", "disk"
    escapes.py serve           the same whenever /srv/ask.json is there, to /srv/escapes.json

Little is damaged where one works: files of the kernel are opened and not written, namespaces end with the child that made them, the
clock is set to what it says. Standard library only; x86-64.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import stat
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
NEWNS, NEWCGROUP, NEWUSER, NEWPID, NEWNET = 0x20000, 0x02000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096
Facts = dict[str, Any]


def syscall(number: int, *arguments: Any) -> int:
    converted = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *converted)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    syscall(165, source.encode(), target.encode(), kind.encode(), flags, options.encode())


def opens(path: str, flags: int) -> None:
    os.close(os.open(path, flags))


def place() -> str:
    """A directory for this child alone."""
    return tempfile.mkdtemp(prefix="escape-")


# ------------------------------------------------------------ files of the kernel


def core_pattern(_: Facts) -> None:
    opens("/proc/sys/kernel/core_pattern", os.O_WRONLY)


def core_pattern_of_a_new_proc(_: Facts) -> None:
    """Where the old one is read-only, a new mount need not be."""
    where = place()
    mount("proc", where, "proc")
    opens(f"{where}/sys/kernel/core_pattern", os.O_WRONLY)


def read_only_undone(_: Facts) -> None:
    mount("", "/proc/sys", "", MS_REMOUNT | MS_BIND)
    opens("/proc/sys/kernel/core_pattern", os.O_WRONLY)


def mask_undone(_: Facts) -> None:
    syscall(166, b"/proc/keys", 0)


def modprobe(_: Facts) -> None:
    opens("/proc/sys/kernel/modprobe", os.O_WRONLY)


def sysrq(_: Facts) -> None:
    opens("/proc/sysrq-trigger", os.O_WRONLY)


def kcore(_: Facts) -> None:
    opens("/proc/kcore", os.O_RDONLY)


def kmsg(_: Facts) -> None:
    syscall(103, 3, ctypes.create_string_buffer(4096), 4096)  # syslog(SYSLOG_ACTION_READ_ALL)


def keys_listed(_: Facts) -> None:
    if not Path("/proc/keys").read_text().strip():
        raise OSError(errno.ENODATA, "")


def uevent_helper(_: Facts) -> None:
    opens(
        "/sys/kernel/uevent_helper" if Path("/sys/kernel/uevent_helper").exists() else "/sys/kernel/profiling",
        os.O_WRONLY,
    )


def release_agent(_: Facts) -> None:
    """A user namespace of one's own may mount cgroups, whose release agent the host's root runs."""
    if os.geteuid() != 0 or Path("/proc/self/uid_map").read_text().split()[:3] != ["0", "0", "4294967295"]:
        syscall(272, NEWUSER | NEWNS | NEWCGROUP)
    else:
        syscall(272, NEWNS)
    where = place()
    controller = next(
        line.split(":")[1] for line in Path("/proc/self/cgroup").read_text().splitlines() if "pids" in line
    )
    mount("cgroup", where, "cgroup", 0, controller)
    opens(f"{where}/release_agent", os.O_WRONLY)


def cgroup_of_one_s_own(_: Facts) -> None:
    """Limits that who is limited can write are none."""
    where = place()
    mount("cgroup2", where, "cgroup2")
    opens(f"{where}/cgroup.procs", os.O_WRONLY)


# ------------------------------------------------------------ devices and files of the host


def disk(facts: Facts) -> None:
    node = f"{place()}/disk"
    os.mknod(node, stat.S_IFBLK | 0o600, os.makedev(*facts["disk"]))
    opens(node, os.O_RDONLY)


def handle(_: Facts) -> None:
    """shocker.c: a file by its number on the file system of a mount that one has; this one is the host's /dev."""
    known = ctypes.create_string_buffer(struct.pack("Ii128s", 128, 0, b""), 136)
    mount_id = ctypes.c_int()
    syscall(303, -100, b"/dev/null", known, ctypes.byref(mount_id), 0)
    fd = os.open("/dev/null", os.O_RDONLY)
    os.close(syscall(304, fd, known, os.O_RDONLY))


def chroot_twice(_: Facts) -> None:
    before = Path("/").stat()
    where = place()
    os.chroot(where)
    for _step in range(64):
        os.chdir("..")
    os.chroot(".")
    after = Path("/").stat()
    if (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino):
        raise OSError(errno.ELOOP, "")  # up again, and no further than the container's own root


def host_root_by_proc(facts: Facts) -> None:
    os.stat(f"/proc/{facts['pid']}/root/etc")  # noqa: PTH116


def descriptors(_: Facts) -> None:
    """Whatever the runtime left open besides stdio: a directory of the host would be the way out."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            if int(name) > 2 and not stat.S_ISFIFO(os.fstat(int(name)).st_mode):  # the pipe is attempt()'s
                return
        except OSError:
            continue  # the listing's own, closed by now
    raise OSError(errno.EBADF, "")


def working_directory(_: Facts) -> None:
    if os.getcwd().startswith("(unreachable)") or not os.path.realpath("/proc/self/cwd").startswith("/"):  # noqa: PTH109
        return
    for _step in range(64):
        os.chdir("..")
    here, root = Path().stat(), Path("/").stat()
    if (here.st_dev, here.st_ino) == (root.st_dev, root.st_ino):
        raise OSError(errno.ELOOP, "")


# ------------------------------------------------------------ other containers, the host's processes


def traces(facts: Facts) -> None:
    syscall(101, 0x4206, facts["pid"], 0, 0)  # PTRACE_SEIZE, which stops nothing


def signals(facts: Facts) -> None:
    os.kill(facts["pid"], 0)


def reads_memory(facts: Facts) -> None:
    opens(f"/proc/{facts['pid']}/mem", os.O_RDONLY)


def enters(facts: Facts) -> None:
    fd = os.open(f"/proc/{facts['pid']}/ns/net", os.O_RDONLY)
    syscall(308, fd, 0)


def enters_anything(_: Facts) -> None:
    """setns itself: into what one is in already."""
    syscall(308, os.open("/proc/self/ns/uts", os.O_RDONLY), 0)


def key_of_the_host(facts: Facts) -> None:
    syscall(250, 11, facts["key"], ctypes.create_string_buffer(64), 64)  # KEYCTL_READ


def keyring(facts: Facts) -> None:
    if syscall(250, 0, -3, 0) != facts["session"]:  # KEYCTL_GET_KEYRING_ID of the session's
        raise OSError(errno.ENOKEY, "")


def abstract_socket(facts: Facts) -> None:
    with socket.socket(socket.AF_UNIX) as own:
        own.connect("\0" + facts["abstract"])


def terminal(_: Facts) -> None:
    """What is typed into the terminal of whoever started it."""
    fcntl.ioctl(os.open("/dev/tty", os.O_RDWR), termios.TIOCSTI, b"x")


# ------------------------------------------------------------ what the kernel offers


def user_namespace(_: Facts) -> None:
    syscall(272, NEWUSER)


def cloned_namespace(_: Facts) -> None:
    pid = syscall(56, NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def cloned_namespace_3(_: Facts) -> None:
    arguments = struct.pack("QQQQQQQQ", NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    pid = syscall(435, arguments, len(arguments))
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def mounts_tmpfs(_: Facts) -> None:
    mount("none", place(), "tmpfs")


def file_system_context(_: Facts) -> None:
    """fsconfig's heap overflow begins with fsopen."""
    os.close(syscall(430, b"tmpfs", 0))


def overlay(_: Facts) -> None:
    where = place()
    for name in ("l", "u", "w", "m"):
        Path(where, name).mkdir()
    mount("o", f"{where}/m", "overlay", 0, f"lowerdir={where}/l,upperdir={where}/u,workdir={where}/w")


def bpf(_: Facts) -> None:
    program = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0))
    license_ = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack("=IIQQIIQII", 1, 2, ctypes.addressof(program), ctypes.addressof(license_), 0, 0, 0, 0, 0)
    os.close(syscall(321, 5, attributes.ljust(120, b"\0"), 120))


def perf(_: Facts) -> None:
    os.close(syscall(298, struct.pack("=IIQ", 1, 112, 0).ljust(112, b"\0"), 0, -1, -1, 0))


def userfault(_: Facts) -> None:
    os.close(syscall(323, 0))


def io_uring(_: Facts) -> None:
    os.close(syscall(425, 4, ctypes.create_string_buffer(120)))


def kernel_module(_: Facts) -> None:
    syscall(313, os.open("/dev/null", os.O_RDONLY), b"", 0)


def kexec(_: Facts) -> None:
    syscall(246, 0, 0, 0, 0)


def ports(_: Facts) -> None:
    syscall(172, 3)  # iopl


def crypto_socket(_: Facts) -> None:
    socket.socket(38, socket.SOCK_SEQPACKET).close()


def hypervisor_socket(_: Facts) -> None:
    socket.socket(40, socket.SOCK_STREAM).close()


def clock(_: Facts) -> None:
    syscall(227, 0, struct.pack("qq", int(time.time()), time.time_ns() % 10**9))


def swap(_: Facts) -> None:
    syscall(168, b"/etc/hostname")


ATTEMPTS: dict[str, tuple[str, Callable[[Facts], None]]] = {
    "write /proc/sys/kernel/core_pattern": ("", core_pattern),
    "the same in a newly mounted proc": ("", core_pattern_of_a_new_proc),
    "the same after making /proc/sys writable": ("", read_only_undone),
    "take the mask off /proc/keys": ("", mask_undone),
    "write /proc/sys/kernel/modprobe": ("", modprobe),
    "write /proc/sysrq-trigger": ("", sysrq),
    "read /proc/kcore": ("", kcore),
    "read the kernel's messages": ("", kmsg),
    "list the host's keys": ("", keys_listed),
    "write /sys/kernel/uevent_helper": ("", uevent_helper),
    "release_agent of a cgroup": ("CVE-2022-0492", release_agent),
    "mount cgroup2": ("", cgroup_of_one_s_own),
    "make the host's disk as a node": ("", disk),
    "open_by_handle_at": ("shocker", handle),
    "chroot twice": ("", chroot_twice),
    "/proc/PID/root of a process outside": ("", host_root_by_proc),
    "descriptors left open": ("CVE-2024-21626", descriptors),
    "up from the working directory": ("CVE-2024-21626", working_directory),
    "trace another container's process": ("", traces),
    "signal it": ("", signals),
    "read its memory": ("", reads_memory),
    "enter its namespace": ("", enters),
    "setns": ("", enters_anything),
    "read a key of the host": ("", key_of_the_host),
    "the starter's session key ring": ("", keyring),
    "the host's abstract socket": ("CVE-2020-15257", abstract_socket),
    "type into the starter's terminal": ("CVE-2017-5226", terminal),
    "unshare a user namespace": ("CVE-2022-0185, CVE-2023-32233", user_namespace),
    "clone a user namespace": ("", cloned_namespace),
    "clone3 a user namespace": ("", cloned_namespace_3),
    "mount a tmpfs": ("", mounts_tmpfs),
    "fsopen": ("CVE-2022-0185", file_system_context),
    "mount an overlay": ("CVE-2021-3493, CVE-2023-0386", overlay),
    "bpf": ("CVE-2021-3490", bpf),
    "perf_event_open": ("CVE-2013-2094", perf),
    "userfaultfd": ("", userfault),
    "io_uring": ("CVE-2022-29582", io_uring),
    "load a module": ("", kernel_module),
    "kexec": ("", kexec),
    "iopl": ("", ports),
    "a socket of AF_ALG": ("", crypto_socket),
    "a socket of AF_VSOCK": ("", hypervisor_socket),
    "set the clock": ("", clock),
    "swap on": ("", swap),
}


def attempt(function: Callable[[Facts], None], facts: Facts) -> str:
    """In a child: "" = it worked, else the errno's name, or what the child died of."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        result = "?"
        try:
            function(facts)
            result = ""
        except OSError as exc:
            result = errno.errorcode.get(exc.errno or 0, str(exc))
        except BaseException as exc:  # noqa: BLE001  whatever it is, the test must see it
            result = repr(exc)
        finally:
            os.write(write_end, b"=" + result.encode())
            os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as answer:
        text = answer.read().decode()
    status = os.waitpid(pid, 0)[1]
    return text[1:] if text.startswith("=") else f"died: {os.waitstatus_to_exitcode(status)}"


def all_attempts(facts: Facts) -> dict[str, str]:
    return {name: attempt(function, facts) for name, (_, function) in ATTEMPTS.items()}


def serve() -> None:
    ask, answer = Path("/srv/ask.json"), Path("/srv/escapes.json")
    ask.parent.mkdir(exist_ok=True)
    while True:
        if ask.exists():
            found = all_attempts(json.loads(ask.read_text()))
            ask.unlink()
            answer.with_suffix(".new").write_text(json.dumps(found))
            answer.with_suffix(".new").rename(answer)
        time.sleep(0.05)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    print(json.dumps(all_attempts(json.loads(sys.argv[2]))))
