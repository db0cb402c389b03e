"""What stands between a container and its host is there after a move as before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from migrate.records import Isolation, Run
from tests.criu.moving_lab import MovingLab, program

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
            fleet.later("filtered", "counter")
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
