"""What stands between a container and its host is there after a move as before."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from migrate.errors import MigrateError
from migrate.records import Device, Isolation, Run
from tests.criu.moving_lab import MovingLab, program, wait_for

pytestmark = pytest.mark.criu

# Refused by the default profile alone: to a user namespace's root without it they are allowed. (unshare: EPERM; AF_ALG: EPERM)
_TRY = """
import ctypes, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def errno(result): return ctypes.get_errno() if result < 0 else 0
def family(number):
    try: socket.socket(number, socket.SOCK_SEQPACKET).close()
    except OSError as exc: return exc.errno
    return 0
status = dict(line.split(":\\t") for line in open("/proc/1/status").read().splitlines() if ":\\t" in line)
own = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
print(json.dumps({
    "unshare": errno(libc.unshare(0x10000000)), "alg": family(38), "userfaultfd": errno(libc.syscall(323, 1)),
    "clone3": errno(libc.syscall(435, 0, 0)), "future": errno(libc.syscall(9999)),
    "init": [status["Seccomp"], status["Seccomp_filters"], status["NoNewPrivs"]],
    "own": [own["Seccomp"], own["Seccomp_filters"], own["NoNewPrivs"]],
}))
"""

_OWN = """
import json, os
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
try: os.mkdir("/tmp/made"); os.rmdir("/tmp/made"); code = 0
except OSError as exc: code = exc.errno
print(json.dumps([status["Seccomp"], status["NoNewPrivs"], code]))
"""

_TUNED = """
import json, os
names = ["net/core/somaxconn", "net/ipv4/ip_unprivileged_port_start", "kernel/shmmni", "kernel/msgmax", "fs/mqueue/msg_max"]
found = {name: open("/proc/sys/" + name).read().strip() for name in names}
def opened(path, flags):
    try: os.close(os.open(path, flags))
    except OSError as exc: return exc.errno
    return 0
found["read"], found["write"] = opened("/srv/nothing", os.O_RDONLY), opened("/srv/nothing", os.O_WRONLY)
found["read fuse"], found["write fuse"] = opened("/dev/again", os.O_RDONLY), opened("/dev/again", os.O_WRONLY)
print(json.dumps(found))
"""
_MKNOD = """
import os, stat
try: os.mknod("/tmp/disk", stat.S_IFBLK | 0o600, os.makedev(254, 0)); print(0)
except OSError as exc: print(exc.errno)
"""


def goes_on(fleet: MovingLab, name: str) -> None:
    """The workload counts on; it may have been started just now."""
    wait_for(lambda: list(fleet.upper(fleet.client.inspect(name)).glob("srv/counter.json")))
    fleet.later(name, "counter")


def test_the_default_filter_moves_there_and_back(fleet: MovingLab) -> None:
    """The filter of the first process is the kernel's on the target too, and `exec` gets it there: the same calls fail in the same way."""
    fleet.client.run(Run(image="work", argv=program("counter"), name="filtered", host="host1"))
    seen = []
    try:
        for step in range(3):
            if step:
                assert fleet.move("filtered").state == "succeeded"
            code, text = fleet.run("filtered", "/usr/bin/python3", "-c", _TRY)
            assert code == 0, text
            seen.append(json.loads(text))
            goes_on(fleet, "filtered")
    finally:
        fleet.client.remove("filtered", force=True)
    assert seen[0]["init"] == seen[0]["own"] == ["2", "1", "1"]
    assert seen[0] == seen[1] == seen[2]
    assert seen[0] | {"init": 0, "own": 0} == {
        "unshare": 1, "alg": 1, "userfaultfd": 1, "clone3": 38, "future": 38, "init": 0, "own": 0,
    }  # fmt: skip


def test_a_profile_of_one_s_own_moves(fleet: MovingLab) -> None:
    """What a profile forbids is forbidden after a move, in `exec` too; unconfined is no filter; new privileges stay as asked for."""
    profile = '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}'
    own = Isolation(seccomp=profile, new_privileges=True)
    for name, isolation, expected in (
        ("own", own, ["2", "0", 28]),
        ("open", Isolation(seccomp="unconfined"), ["0", "1", 0]),
    ):
        fleet.client.run(Run(image="work", argv=program("counter"), name=name, host="host1", isolation=isolation))
        try:
            for step in range(2):
                if step:
                    assert fleet.move(name).state == "succeeded"
                assert fleet.run(name, "/usr/bin/python3", "-c", _OWN) == (0, json.dumps(expected) + "\n")
                state = Path(f"/proc/{fleet.client.inspect(name).pid}/status").read_text()
                assert f"\nSeccomp:\t{expected[0]}\n" in state
                assert f"\nNoNewPrivs:\t{expected[1]}\n" in state
        finally:
            fleet.client.remove(name, force=True)


def test_sysctls_and_devices_move(fleet: MovingLab) -> None:
    """Kernel parameters of both namespaces and a device are there after moves to and fro; less access than asked for stays refused."""
    values = {
        "net.core.somaxconn": "77", "net.ipv4.ip_unprivileged_port_start": "80", "kernel.shmmni": "99", "kernel.msgmax": "6000",
        "fs.mqueue.msg_max": "7",
    }  # fmt: skip
    nodes = (
        Device(source="/dev/zero", target="/srv/nothing"),
        Device(source="/dev/fuse", target="/dev/again", permissions="r"),
    )
    # The node is the host's root's: with ids of its own the container could not open this one (0600) at all.
    isolation = Isolation(sysctls=values, devices=nodes, user="host")
    fleet.client.run(Run(image="work", argv=program("counter"), name="tuned", host="host1", isolation=isolation))
    try:
        seen = []
        for step in range(3):
            if step:
                assert fleet.move("tuned").state == "succeeded"
            code, text = fleet.run("tuned", "/usr/bin/python3", "-c", _TUNED)
            assert code == 0, text
            seen.append(json.loads(text))
            goes_on(fleet, "tuned")
    finally:
        fleet.client.remove("tuned", force=True)
    opened = {"read": 0, "write": 0, "read fuse": 0, "write fuse": 1}
    assert seen[0] == {name.replace(".", "/"): value for name, value in values.items()} | opened
    assert seen[0] == seen[1] == seen[2]


def test_low_ports_need_no_privilege(fleet: MovingLab) -> None:
    """As Docker has it: a user without privileges may serve port 80 of the container, before a move and after it."""
    fleet.client.run(Run(image="work", argv=program("counter"), name="low", host="host1"))
    listen = (
        "import os, socket; os.setuid(1000); socket.create_server(('', 80)); socket.socket(2, 2, 1); print('served')"
    )
    try:
        for step in range(2):
            if step:
                assert fleet.move("low").state == "succeeded"
            assert fleet.run("low", "/usr/bin/python3", "-c", listen) == (0, "served\n")
    finally:
        fleet.client.remove("low", force=True)


def open_files(pid: int) -> set[str]:
    """Of a process that opens and closes some meanwhile."""
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(fd.readlink()))
    return found


def test_an_open_device_stays(fleet: MovingLab) -> None:
    """Who holds a device of the host's open is refused a move with its name; when it is closed the move goes through."""
    isolation = Isolation(devices=(Device(source="/dev/fuse", target="/dev/fuse"),), user="host")
    hold = (
        "import os, time; fd = os.open('/dev/fuse', os.O_RDWR)\n"
        "while not os.path.exists('/tmp/let-go'): time.sleep(0.05)\n"
        "os.close(fd); time.sleep(600)"
    )
    fleet.client.run(
        Run(image="work", argv=("/usr/bin/python3", "-c", hold), name="held", host="host1", isolation=isolation)
    )
    try:
        init = fleet.client.inspect("held").pid
        wait_for(lambda: "/dev/fuse" in open_files(init))
        with pytest.raises(MigrateError, match=r"the device /dev/fuse \(c 10:229\) is open"):
            fleet.move("held")
        assert fleet.run("held", "/bin/touch", "/tmp/let-go")[0] == 0
        wait_for(lambda: "/dev/fuse" not in open_files(init))
        assert fleet.move("held").state == "succeeded"
    finally:
        fleet.client.remove("held", force=True)


def test_namespaces_of_the_host(fleet: MovingLab) -> None:
    """Who shares the host's processes or memory runs, and is refused a move with the reason; who shares its name moves, and has
    the target's then.
    """
    for name, isolation in (("pids", Isolation(pid="host")), ("memory", Isolation(ipc="host"))):
        fleet.client.run(Run(image="work", argv=program("counter"), name=name, host="host1", isolation=isolation))
        try:
            init = fleet.client.inspect(name).pid
            kind = "pid" if name == "pids" else "ipc"
            assert Path(f"/proc/{init}/ns/{kind}").readlink() == Path(f"/proc/self/ns/{kind}").readlink()
            code, text = fleet.run(
                name, "/usr/bin/python3", "-c", "import os; print(os.getpid(), len(os.listdir('/proc')))"
            )
            assert code == 0, text
            with pytest.raises(MigrateError, match="shares the host's"):
                fleet.move(name)
        finally:
            fleet.client.remove(name, force=True)
    fleet.client.run(
        Run(image="work", argv=program("counter"), name="uts", host="host1", isolation=Isolation(uts="host"))
    )
    try:
        assert fleet.run("uts", "/bin/uname", "-n") == (0, "host1\n")
        assert fleet.move("uts").state == "succeeded"
        assert fleet.run("uts", "/bin/uname", "-n") == (0, "host2\n")
        goes_on(fleet, "uts")
    finally:
        fleet.client.remove("uts", force=True)


def test_users_of_the_host_move(fleet: MovingLab) -> None:
    """With --userns host the ids are the host's, before a move and after it; what they may do is still the namespace's."""
    fleet.client.run(
        Run(image="work", argv=program("counter"), name="users", host="host1", isolation=Isolation(user="host"))
    )
    try:
        for step in range(2):
            if step:
                assert fleet.move("users").state == "succeeded"
            init = fleet.client.inspect("users").pid
            assert Path(f"/proc/{init}/uid_map").read_text().split() == ["0", "0", "4294967295"]
            assert Path(f"/proc/{init}").stat().st_uid == 0
            assert fleet.run("users", "/usr/bin/python3", "-c", _MKNOD) == (0, "1\n")
            goes_on(fleet, "users")
    finally:
        fleet.client.remove("users", force=True)
