"""What must hold on real hosts, in order: `python -m tests.vm.moves INSTALLATION.tar TOOLS`, with vm1 and vm2 up.

Installs on both, asks their doctors, restarts an agent under a running container, and moves two containers from vm1 to vm2 and back:
a Redis whose client outside keeps one TCP connection, and a family of processes with open files, limits, logs and an exit status.
Then a service with all that closes it in (service.py), and soft-dirty pre-copy (soft_dirty.py).
Exit status 0 only if all of it holds.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from migrate.errors import MigrateError
from migrate.lab import images
from migrate.lab.demo_run import CheckFailed, Checks, Seen, say
from tests.vm import fleet as vm
from tests.vm.fleet import Fleet, Machine
from tests.vm.service import service
from tests.vm.soft_dirty import soft_dirty

WORKLOADS = Path(__file__).resolve().parents[1] / "workloads"
PYTHON = "/opt/migrate/app/bin/python"
CONTAINERS = "/sys/fs/cgroup/system.slice/migrate-agent.service/containers"
MEMORY_BYTES = 256 << 20
CLIENT_RATE = 20.0  # requests a second: more would only heat the emulated processor
SETTLE_S = 5.0
PORT = 6379
REDIS = ("redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/tmp")
# $0 and $1 are two programs; the shell, as init, waits for them and has an exit status of its own.
FAMILY = """trap 'exit 7' TERM
python3 -c "$0" /srv/counter.json &
python3 -c "$1" /srv/open_files.json &
while :; do wait; done"""


def install(machine: Machine, archive: Path, authority: Path) -> tuple[str, float]:
    """Installation and set-up as an operator does them by hand; returns the host's table for the coordinator, and seconds."""
    began = time.monotonic()
    # The machines are clones of one image: a host key of its own is what is pinned for each.
    machine.run(
        "rm -f /etc/ssh/ssh_host_* && ssh-keygen -A && systemctl reload ssh; rm -rf /root/migrate; mkdir /root/migrate"
    )
    machine.put(archive, authority, to="/root/migrate/")
    machine.run(f"cd /root/migrate && tar xf {archive.name} && ./install")
    card = machine.run("cd /sys/class/net && ls -d */device | head -n 1").partition("/")[0]
    words = f"--name {machine.name} --address {vm.address(machine.number)} --authority /root/migrate/{authority.name}"
    table = machine.run(f"{PYTHON} -m agent.setup.host {words} --uplink {card}")
    return table, time.monotonic() - began


def doctor(machine: Machine) -> None:
    say(f"migrate doctor on {machine.name}")
    for line in machine.run("migrate doctor --config /etc/migrate/agent.toml").splitlines():
        print(f"    {line}")


def move(fleet: Fleet, checks: Checks, name: str, source: Machine, target: Machine) -> Any:
    """Move it, show what the record says, check what both hosts have; returns the record."""
    identity = fleet.inspect(name)["id"]
    limits = source.run(f"cd {CONTAINERS}/{identity} && cat memory.max cpu.max")
    fleet.migrate("move", name, "--to", target.name)
    record = fleet.last_move(name)
    fleet.migrate("migrations", "show", record["id"])
    checks.expect("the move succeeded", record["state"] == "succeeded", record["state"])
    checks.expect("memory was sent ahead, in rounds", _rounds(record) > 1, f"{_rounds(record)} rounds")
    there = fleet.inspect(name)
    checks.expect(
        f"it runs on {target.name}",
        (there["host"], there["state"]) == (target.name, "running"),
        f"{there['host']}: {there['state']}",
    )
    moved = target.run(f"cd {CONTAINERS}/{identity} && cat memory.max cpu.max")
    checks.expect(
        f"its limits are in force there (memory.max, cpu.max: {moved.split()})", moved == limits, f"before: {limits}"
    )
    left = source.run(
        f"ls {CONTAINERS} /run/migrate/moves /run/migrate/containers /var/lib/migrate/containers | grep {identity};"
        f" ls /run/migrate/moves; ip -br link | grep {identity[:11]}; mount | grep {identity}; true"
    )
    checks.expect(f"nothing of it is left on {source.name}", not left.strip(), left)
    return record


def _rounds(record: Any) -> int:
    done = [row["facts"] for row in record["journal"] if row["step"] == "precopy" and row["event"] == "done"]
    return len(done[-1].get("each_round", ())) if done else 0


def redis(fleet: Fleet, checks: Checks, first: Machine, second: Machine) -> None:
    """A server with a client outside, on one connection throughout."""
    say("Redis on vm1, a client outside")
    fleet.migrate("image", "import", str(images.redis_rootfs()), "redis", "--host", first.name)
    fleet.migrate("run", "-d", "--name", "web1", "--host", first.name, "-m", str(MEMORY_BYTES), "redis", *REDIS)
    there = fleet.inspect("web1")
    where = there["address"].partition("/")[0]
    vm.wait_for_server(where, PORT)
    with vm.client(where, PORT, CLIENT_RATE) as client:
        say("systemctl restart migrate-agent, under the running container")
        client.report()
        first.service("restart")
        fleet.wait_ready()
        seen = client.report()
        now = fleet.inspect("web1")
        checks.expect(
            f"its process is the same, pid {now['pid']}",
            (now["pid"], now["state"]) == (there["pid"], "running"),
            str(now),
        )
        quiet(checks, client.port, seen)
        print(f"    the client's longest wait was {seen.longest_gap_s * 1000:.0f} ms of {seen.replies} answers")
        for source, target in ((first, second), (second, first)):
            say(f"web1 from {source.name} to {target.name}")
            client.report()
            move(fleet, checks, "web1", source, target)
            during = client.report()
            time.sleep(SETTLE_S)
            after = client.report()
            quiet(checks, client.port, during)
            quiet(checks, client.port, after)
            value = fleet.migrate("exec", "web1", "redis-cli", "get", "demo:counter", show=False).strip().strip('"')
            checks.expect(
                f"exec works there, and the counter in the database is {value}", int(value) >= after.value, str(after)
            )
            gap = max(during.longest_gap_s, after.longest_gap_s)
            print(f"    seen from outside: the client's longest gap {gap:.2f} s (emulated: no measure of the product)")
    fleet.migrate("stop", "web1")
    code = fleet.inspect("web1")["exit_code"]
    checks.expect("redis-server stopped with its own exit status, 0", code == 0, f"{code}")
    fleet.migrate("rm", "web1")


def quiet(checks: Checks, port: int, seen: Seen) -> None:
    """Nothing that a client may notice."""
    whole = not seen.problems and seen.replies > 0 and seen.port == port
    checks.expect(
        f"{seen.replies} answers, none lost or repeated, on the connection from port {port}", whole, str(seen)
    )


def family(fleet: Fleet, checks: Checks, first: Machine, second: Machine) -> None:
    """Processes, open files, limits, logs, exit status."""
    say("A family of processes with open files and limits on vm1")
    fleet.migrate("image", "import", str(images.python_rootfs()), "python", "--host", first.name)
    programs = [(WORKLOADS / name).read_text() for name in ("counter.py", "open_files.py")]
    options = ("-d", "--name", "jobs", "--host", first.name, "-m", str(MEMORY_BYTES), "--cpus", "0.5")
    fleet.migrate("run", *options, "python", "sh", "-c", FAMILY, *programs, show=False)
    before = wait_for_status(fleet)
    for source, target in ((first, second), (second, first)):
        say(f"jobs from {source.name} to {target.name}")
        move(fleet, checks, "jobs", source, target)
        time.sleep(SETTLE_S)
        now = wait_for_status(fleet)
        for name, state in now.items():
            same = state["token"] == before[name]["token"] and state["count"] > before[name]["count"]
            checks.expect(
                f"{name}: the same process, {state['count']} rounds now, nothing wrong with what it holds",
                same and not state["problems"],
                f"{before[name]}, then {state}",
            )
        before = now
        said = [line.split() for line in fleet.migrate("logs", "jobs", show=False).splitlines()]
        numbers = [int(line[-1]) for line in said]
        checks.expect(
            f"its log goes on, {len(numbers)} lines, none lost or repeated",
            numbers == list(range(100, 100 * len(numbers) + 1, 100)) and len({line[0] for line in said}) == 1,
            f"{numbers[:3]} ... {numbers[-3:]}",
        )
    fleet.migrate("stop", "jobs")
    code = fleet.inspect("jobs")["exit_code"]
    checks.expect("its exit status, 7, is kept", code == 7, f"{code}")
    fleet.migrate("rm", "jobs")


def wait_for_status(fleet: Fleet) -> dict[str, Any]:
    """What both programs say of themselves. Raises CheckFailed when they say nothing for a while."""
    deadline = time.monotonic() + vm.READY_LIMIT_S
    while True:
        try:
            names = ("counter", "open_files")
            return {
                name: json.loads(fleet.migrate("exec", "jobs", "cat", f"/srv/{name}.json", show=False))
                for name in names
            }
        except CheckFailed:
            if time.monotonic() > deadline:
                raise
            time.sleep(2)


def story(fleet: Fleet, checks: Checks, archive: Path, machines: tuple[Machine, Machine]) -> None:
    """All of it, in order."""
    say("Installation on both, from what was carried in")
    authority = fleet.authority_file()
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda machine: install(machine, archive, authority), machines))
    for machine, (_, took_s) in zip(machines, done, strict=True):
        print(
            f"    {machine.name}: {machine.service('is-active')}, systemd {machine.run('systemctl --version').split()[1]}, {took_s:.0f} s"
        )
    for machine in machines:
        doctor(machine)
    say("The fleet, from outside")
    fleet.start([table for table, _ in done])
    fleet.migrate("hosts")
    redis(fleet, checks, *machines)
    family(fleet, checks, *machines)
    service(fleet, checks, *machines)
    soft_dirty(fleet, checks, *machines)


def main() -> int:
    archive, tools = Path(sys.argv[1]), Path(sys.argv[2])
    machines = (Machine(1, tools), Machine(2, tools))
    checks, began, status = Checks(), time.monotonic(), 1
    directory = Path(tempfile.mkdtemp(prefix="migrate-vm-"))
    try:
        with Fleet(directory) as fleet:
            story(fleet, checks, archive, machines)
        status = 0
    except (CheckFailed, MigrateError, OSError) as exc:
        print(f"\nFAILED: {exc}")
        if not isinstance(exc, CheckFailed):
            traceback.print_exc(file=sys.stdout)
        for machine in machines:
            print(f"\n-- the agent's log on {machine.name}")
            print(machine.run("journalctl -u migrate-agent --no-pager -n 60 || true"), end="")
        print(f"\n-- the coordinator's log: {directory}/coordinator.log")
    if status == 0 and not os.environ.get("KEEP_VM"):
        shutil.rmtree(directory)
    print(f"\n{'all checks passed' if status == 0 else 'NOT all is well'}, {time.monotonic() - began:.0f} s in all")
    return status


if __name__ == "__main__":
    sys.exit(main())
