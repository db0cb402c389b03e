"""`python -m migrate.lab.demo`: a Redis full of data moves to another host and back, watched by a client outside.

Builds a lab of its own with two hosts, does everything through the command line, checks everything, and takes the lab
away. Exit status 0 only if all of it holds. DEMO_SIZE_MB: how much data, 200 by default; DEMO_LAB: the lab's name, mdemo.
"""

# ruff: noqa: T201
# A program that talks to people.

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from migrate.errors import MigrateError
from migrate.lab import demo_report, down, images, layout, observe
from migrate.lab.demo_run import CheckFailed, Checks, Outside, Shell, say
from migrate.lab.layout import LabError
from migrate.lab.lock import lock

PREFIX = layout.prefix_from({"MIGRATE_LAB": os.environ.get("DEMO_LAB") or "mdemo"})
CONTAINER = "web1"
PORT = 6379
SETTLE_S = 3.0  # how long the client goes on after a move, before anybody looks
RUN = ("redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/tmp")  # noqa: S104, S108


def demo(shell: Shell, size_mb: int, checks: Checks) -> None:
    """The whole story, in order. Raises CheckFailed, or whatever went wrong."""
    say("A lab of two hosts")
    shell.migrate("lab", "up", "--hosts", "2")
    image = images.redis_rootfs()
    say(f"The image goes to host1 only ({image.stat().st_size / 1e6:.0f} MB)")
    shell.migrate("image", "import", str(image), "redis", "--host", "host1")
    idle = observe.snapshot(PREFIX)
    say("Redis in a container on host1")
    shell.migrate("run", "-d", "--name", CONTAINER, "--host", "host1", "redis", *RUN)
    address = shell.container(CONTAINER)["address"].partition("/")[0]
    outside = Outside(shell.lab, address, PORT)
    outside.wait_for_server()

    seed = secrets.token_hex(8)
    say(f"{size_mb} MB of data that does not compress")
    filled = outside.data("fill", size_mb, seed)
    print(f"    {filled['keys']} keys, {filled['bytes'] / 1e6:.0f} MB, in {filled['seconds']:.1f} s")

    with outside.client() as client:
        time.sleep(1)
        print(f"    the client, {client.report().replies} answers a second on one connection from port {client.port}")
        images_at_target = [each for each in shell.images() if each["host"] == "host2"]
        checks.expect("host2 has no image of it yet", not images_at_target, f"it has {images_at_target}")
        for source, target in (("host1", "host2"), ("host2", "host1")):
            say(f"migrate move {CONTAINER} --to {target}")
            client.report()
            shell.migrate("move", CONTAINER, "--to", target)
            during = client.report()
            time.sleep(SETTLE_S)
            after = client.report()
            record = shell.last_migration(CONTAINER)
            demo_report.show(record, during, after)
            shell.migrate("migrations", "show", record.id, "--timeline")
            demo_report.check_move(checks, record, f"{source} to {target}")
            demo_report.check_client(checks, record, client.port, during, after)
            verified = outside.data("verify", size_mb, seed)
            demo_report.check_data(checks, verified)
            where = [each for each in shell.containers() if each["name"] == CONTAINER]
            hosts = " ".join(f"{each['host']}:{each['state']}" for each in where)
            checks.expect(f"it runs on {target} and nowhere else", hosts == f"{target}:running", f"found {hosts}")
        client.report()

    say("What is left on the hosts")
    shell.migrate("rm", "-f", CONTAINER)
    time.sleep(0.5)  # the last processes end
    left = observe.differences(idle, observe.snapshot(PREFIX))
    checks.expect("nothing of the container is left on any host", not left, "; ".join(left))


def main() -> int:
    if os.geteuid() != 0:
        print("error: the demo makes namespaces and mounts, and so needs root\nhint: run it with sudo", file=sys.stderr)
        return 1
    size_mb = int(os.environ.get("DEMO_SIZE_MB", "200"))
    try:
        # A second demo of the same lab would begin by clearing the first one away.
        with lock(f"{PREFIX}-demo", wait=False):
            return _run(size_mb)
    except LabError as exc:
        print(f"error: another demo is running: {exc}", file=sys.stderr)
        return 1


def _run(size_mb: int) -> int:
    # A second Ctrl-C, or a SIGTERM, must not stop the clearing away: from the first on both are ignored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lab = layout.Lab(prefix=PREFIX, hosts=2)
    checks, begun, status = Checks(), time.monotonic(), 1
    try:
        down.down(PREFIX, force=True)  # what an earlier demo may have left when the machine crashed
        demo(Shell(lab), size_mb, checks)
        status = 0
    except KeyboardInterrupt:
        print("\ninterrupted")
        status = 130
    except (CheckFailed, MigrateError, OSError) as exc:
        print(f"\nFAILED: {exc}")
        if isinstance(exc, MigrateError) and (exc.detail or exc.hint):
            print(f"{exc.detail}\nhint: {exc.hint}")
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if status not in (0, 130):
            print(f"the logs of all nodes: {keep_logs(lab)}")
        status = _clear_away(checks, status)
    passed = "all checks passed" if status == 0 else f"NOT all is well, exit status {status}"
    print(f"\n{passed}, {time.monotonic() - begun:.0f} s in all")
    return status


def keep_logs(lab: layout.Lab) -> Path:
    """Copy the nodes' logs to where `down` does not remove them."""
    kept = Path(tempfile.mkdtemp(prefix="migrate-demo-logs-", dir="/var/tmp"))
    for log in lab.state_dir.glob("*/log/*.log"):
        (kept / log.parent.parent.name).mkdir(exist_ok=True)
        shutil.copy(log, kept / log.parent.parent.name / log.name)
    return kept


def _clear_away(checks: Checks, status: int) -> int:
    say("The lab goes")
    try:
        for line in down.down(PREFIX, force=status != 0):
            print(f"    {line}")
        left = observe.snapshot(PREFIX).describe()
        checks.expect("no process, namespace, mount, cgroup or file is left", not left, "; ".join(left))
    except (CheckFailed, MigrateError, OSError) as exc:
        print(f"FAILED: {exc}")
        return status or 1
    return status


if __name__ == "__main__":
    sys.exit(main())
