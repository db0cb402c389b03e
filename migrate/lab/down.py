"""`migrate lab down`: end and remove everything of a lab, in whatever state it is."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from migrate.lab import cgroups, layout, network, nodes, processes, provision
from migrate.lab.layout import Lab, LabError
from migrate.lab.lock import lock
from migrate.lab.processes import Process

_GRACE_S = 12.0  # for the supervisors after SIGTERM: longer than one gives its two programs
_KILL_TIMEOUT_S = 20.0


def down(prefix: str, *, force: bool = False, keep: bool = False) -> list[str]:
    """Returns what was done, line by line; nothing when there was no lab.

    `force` ends everything at once instead of letting agents and coordinator end by themselves. `keep` leaves the
    directory: images, keys, logs. Raises LabError with all that went wrong, after having tried everything.
    """
    lab = Lab(prefix=prefix, hosts=layout.DEFAULT_HOSTS)
    with lock(prefix):
        done = [] if force else _ask_to_end(lab)
        done += clear(prefix)
        if lab.state_dir.exists() and not keep:
            _remove(lab.state_dir)
            done.append(f"removed {lab.state_dir}")
        _remove_mount_point()
    return done


def clear(prefix: str) -> list[str]:
    """Processes, namespaces, mounts and cgroups; the directory stays. Says what it did; LabError after trying all."""
    lab = Lab(prefix=prefix, hosts=layout.DEFAULT_HOSTS)
    done: list[str] = []
    failures: list[str] = []

    def attempt(step: Callable[[], str]) -> None:
        try:
            if said := step():
                done.append(said)
        except LabError as exc:  # the rest must be tried too
            failures.append(exc.message)

    def kill() -> str:
        count = processes.kill_until_none(lambda: members(lab), timeout_s=_KILL_TIMEOUT_S)
        return f"killed {count} processes" if count else ""

    def unmount() -> str:
        points = mounts_below(lab.state_dir)
        for point in sorted(points, key=len, reverse=True):
            result = subprocess.run(["umount", "--lazy", point], check=False, capture_output=True, text=True)
            if result.returncode:
                raise LabError(f"{point} cannot be unmounted: {result.stderr.strip()}")
        return f"unmounted {len(points)}" if points else ""

    def unwire() -> str:
        names = network.names(prefix)
        network.down(prefix)
        return f"removed network namespaces {' '.join(names)}" if names else ""

    def ungroup() -> str:
        count = sum(1 for _ in cgroups.groups(lab.label))
        cgroups.remove(lab.label)
        return f"removed {count} cgroups" if count else ""

    for step in (kill, unmount, unwire, ungroup):
        attempt(step)
    if failures:
        raise LabError("; ".join(failures), touched="something", hint="try again: migrate lab down --force")
    return done


def members(lab: Lab) -> dict[int, Process]:
    """Every process of the lab, the supervisors' and the containers' too."""
    return processes.members(lab.prefix, lab.label, nodes.supervisors(lab.state_dir).values())


def mounts_below(directory: Path) -> list[str]:
    """Mount points below a directory in this mount namespace."""
    return mounts_starting(f"{directory}/")


def mounts_starting(text: str) -> list[str]:
    """Mount points in this mount namespace whose path starts so."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [point for line in lines if (point := line.split(" ")[4]).startswith(text)]


def _ask_to_end(lab: Lab) -> list[str]:
    """SIGTERM to the supervisors, which end their agents and sshd; wait for them."""
    asked: list[Process] = []
    for pid in nodes.supervisors(lab.state_dir).values():
        process = processes.read(pid)
        if process is not None and processes.send(process, signal.SIGTERM):
            asked.append(process)
    deadline = time.monotonic() + _GRACE_S
    while any(processes.alive(each.pid, each.start_ticks) for each in asked) and time.monotonic() < deadline:
        time.sleep(0.02)
    return [f"ended {len(asked)} nodes"] if asked else []


def _remove(directory: Path) -> None:
    if below := mounts_below(directory):
        raise LabError(f"{directory} is not removed: {below[0]} is still mounted", hint="unmount it and try again")
    shutil.rmtree(directory)


def _remove_mount_point() -> None:
    """The machine's own /var/lib/migrate, if a lab had to make it and no other lab stands.

    Removing a directory tears off what other mount namespaces have mounted on it, so never under another lab.
    """
    others = [path for path in provision.STATE.parent.glob("migrate-lab*") if path.is_dir()]
    if not others and provision.MADE_BY_LAB.exists() and len(list(provision.STATE.iterdir())) == 1:
        provision.MADE_BY_LAB.unlink()
        provision.STATE.rmdir()
