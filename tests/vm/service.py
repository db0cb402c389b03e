"""A service as people run one, moved from vm1 to vm2: a published port, a volume, a read-only root, a restart policy, health, and what
closes it in: on cgroup version 2 and under systemd. Called by moves.py.
"""

from __future__ import annotations

import json
import time
from typing import Any

from agent.criu import mount_flags
from migrate.lab.demo_run import CheckFailed, Checks, say
from tests.vm import fleet as vm
from tests.vm.fleet import Fleet, Machine

NAME, PORT = "svc", 8080
# Answers each connection with a number that it also keeps in its volume; "end" makes it exit with 3.
PROGRAM = """
import pathlib, socket
kept = pathlib.Path("/data/count")
count = int(kept.read_text()) if kept.exists() else 0
server = socket.create_server(("", 8080))
while True:
    connection, _ = server.accept()
    with connection:
        asked = connection.recv(100)
        if not asked:
            continue  # who only looks whether somebody listens
        if asked.startswith(b"end"):
            raise SystemExit(3)
        count += 1
        kept.write_text(str(count))
        connection.sendall(b"%d\\n" % count)
"""
ASK = (
    "import socket, sys; c = socket.create_connection((sys.argv[1], 8080), 60);"
    " c.sendall(sys.argv[2].encode()); print(c.recv(100).decode())"
)


def service(fleet: Fleet, checks: Checks, first: Machine, second: Machine) -> None:
    """All of it. Raises CheckFailed."""
    say("A service with a published port, a volume, a read-only root, a restart policy and a health check on vm1")
    options = (
        "-d",
        "--name",
        NAME,
        "--host",
        first.name,
        "-p",
        f"{PORT}:{PORT}",
        "-v",
        "counts:/data",
        "--tmpfs",
        "/tmp",
    )
    policy = (
        "--read-only",
        "--restart",
        "on-failure",
        "--health-cmd",
        "test -e /data/count",
        "--health-interval",
        "5s",
    )
    fleet.migrate("run", *options, *policy, "-m", "256m", "python", "python3", "-c", PROGRAM, show=False)
    vm.wait_for_server(vm.address(first.number), PORT)
    said = ask(second, first)
    checks.expect("its port answers at vm1's address", said == 1, f"{said}")
    closed_in(fleet, checks)
    before = mounts(fleet)
    fleet.migrate("move", NAME, "--to", second.name)
    said = ask(first, second)
    checks.expect("its port answers at vm2's address, and it counts on", said == 2, f"{said}")
    checks.expect(f"its volume is on {second.name}", volume(fleet)["host"] == second.name, str(volume(fleet)))
    left = first.run("ls /var/lib/migrate/volumes; true").strip()
    checks.expect(f"and not on {first.name} any more", "counts" not in left, left)
    closed_in(fleet, checks)
    now = mounts(fleet)
    checks.expect(
        f"all its {len(now)} mounts have the flags that they had",
        now == before,
        "; ".join(f"{was}, then {there}" for was, there in zip(before, now, strict=False) if was != there),
    )
    ask(first, second, "end")
    status = until(fleet, lambda one: one["restarts"] == 1 and one["state"] == "running")
    checks.expect("it exited with 3, and vm2 started it again", status["restarts"] == 1, str(status))
    vm.wait_for_server(vm.address(second.number), PORT)
    said = ask(first, second)
    checks.expect("it found its count in the volume", said == 3, f"{said}")
    status = until(fleet, lambda one: one["health_now"]["status"] == "healthy")
    checks.expect("it is healthy", status["health_now"]["status"] == "healthy", str(status))
    fleet.migrate("rm", "-f", NAME)
    fleet.migrate("volume", "rm", "counts")


def ask(asker: Machine, host: Machine, what: str = "next") -> int:
    """What the service says through the published port of `host`; 0 for nothing."""
    said = asker.run(f"python3 -c '{ASK}' {vm.address(host.number)} {what}").strip()
    return int(said or 0)


def closed_in(fleet: Fleet, checks: Checks) -> None:
    """The filter of system calls, privileges, the root, and devices by the version 2 program."""
    status = fleet.migrate("exec", NAME, "sh", "-c", "grep -E 'Seccomp:|NoNewPrivs' /proc/1/status", show=False).split()
    checks.expect(
        "a seccomp filter and no new privileges", status == ["NoNewPrivs:", "1", "Seccomp:", "2"], str(status)
    )
    root = fleet.migrate("exec", NAME, "sh", "-c", "touch /x 2>&1; touch /tmp/x /data/x && echo written", show=False)
    checks.expect(
        "its root is read-only, its volume and its tmpfs are not", "Read-only" in root and "written" in root, root
    )


def mounts(fleet: Fleet) -> mount_flags.Flags:
    """What its init sees of them: mount points, and what is forbidden there."""
    return mount_flags.parse(fleet.migrate("exec", NAME, "cat", "/proc/1/mountinfo", show=False))


def volume(fleet: Fleet) -> Any:
    return json.loads(fleet.migrate("volume", "inspect", "counts", show=False))[0]


def until(fleet: Fleet, holds: Any) -> Any:
    """The container's record once it is so. Raises CheckFailed."""
    deadline = time.monotonic() + vm.READY_LIMIT_S
    while not holds(status := fleet.inspect(NAME)):
        if time.monotonic() > deadline:
            raise CheckFailed(f"it did not come to be: {status}")
        time.sleep(2)
    return status
