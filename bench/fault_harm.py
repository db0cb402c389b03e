"""What can be done to a lab from outside while web1 moves in it. Each function does it and returns what takes it back.

NotThere: there is nothing to do it to at this instant.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from bench.fault_instants import database
from bench.fault_scene import Scene, Victim
from migrate.client import Client
from migrate.errors import MigrateError
from migrate.lab import cgroups, nodes, processes, provision
from migrate.lab.layout import Lab
from protos import agent_pb2, agent_pb2_grpc

Heal = Callable[[], None]
ROOM_LEFT = 16 << 10  # a full disk is one on which the next file does not fit
GONE_LIMIT_S = 2.0
SECOND_LIMIT_S = 20.0
SHRINK_TRIES = 20
MEMORY_LIMIT = 64 << 10  # of a process that is to be killed for want of memory
_numbers = itertools.count()


class NotThere(Exception):
    """Says what is missing."""


@dataclass(kw_only=True)
class Field:
    """The move that something is done to. `old`: a copy of the coordinator's database from before it."""

    scene: Scene
    fleet: Client
    old: Path
    migration_id: str = ""
    notes: list[str] = field(default_factory=list)  # what is to be said of what came of it
    wrong: list[str] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)  # ended before the cell is judged

    @property
    def lab(self) -> Lab:
        return self.scene.lab

    def beside(self, what: Callable[[], None]) -> None:
        """Do it in a thread: who is asked may be stopped just now."""
        thread = threading.Thread(target=what, daemon=True)
        thread.start()
        self.threads.append(thread)


def nothing() -> None:
    """What was done cannot be taken back: supervisors and the product deal with it."""


def kill(victim: Victim, at: Field) -> Heal:
    process = at.scene.find(victim)
    if process is None:
        raise NotThere(f"no {victim}")
    if not processes.send(process, signal.SIGKILL):
        raise NotThere(f"{victim} ended by itself")
    _until_gone(process)
    return nothing


def _until_gone(process: processes.Process) -> bool:
    deadline = time.monotonic() + GONE_LIMIT_S
    while processes.alive(process.pid, process.start_ticks):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


# ------------------------------------------------------------ links


def host_of(role: str, scene: Scene) -> str:
    return {"source": scene.source, "target": scene.target}.get(role, role)


def cut(one: str, other: str, at: Field) -> Heal:
    """No frame passes the switch between two nodes; each still reaches everybody else."""
    first, second = host_of(one, at.scene), host_of(other, at.scene)
    table = f"cut{next(_numbers)}"
    rules = f"""table bridge {table} {{
        chain forward {{
            type filter hook forward priority 0;
            iifname "{first}" oifname "{second}" drop
            iifname "{second}" oifname "{first}" drop
        }}
    }}"""
    switch = ["ip", "netns", "exec", at.lab.netns("switch"), "nft"]
    subprocess.run([*switch, "-f", "-"], input=rules, check=True, capture_output=True, text=True)
    return lambda: _run(*switch, "delete", "table", "bridge", table)


def unplug(role: str, at: Field) -> Heal:
    """A host's link goes down at the switch: nobody reaches it, nor web1 on it."""
    link = ["ip", "-n", at.lab.netns("switch"), "link", "set", host_of(role, at.scene)]
    _run(*link, "down")
    return lambda: _run(*link, "up")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


# ------------------------------------------------------------ room


def full_disk(role: str, at: Field) -> Heal:
    """Of a host, or of the coordinator: a file takes all that is free. Only where it is a disk of the lab's own (fault_disks.py)."""
    disk = (at.lab.node_dir(host_of(role, at.scene)) / "var").resolve()
    if not disk.is_mount():
        raise NotThere(f"{disk} is a directory on the machine's own disk, which is not filled")
    path = disk / f"full{next(_numbers)}"
    with path.open("wb") as file:
        size = 0
        step = 256 << 20
        while step >= ROOM_LEFT:
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            try:
                if free < step:
                    raise OSError
                os.posix_fallocate(file.fileno(), size, step)
                size += step
            except OSError:
                step //= 2
    return lambda: path.unlink(missing_ok=True)


def full_run(role: str, at: Field) -> Heal:
    """A host's /run: it is made as small as what is on it."""
    return _shrink(at.lab, host_of(role, at.scene), Path("/run"))


def full_stage(role: str, at: Field) -> Heal:
    """The tmpfs that this move has on that host, as full_run()."""
    host = host_of(role, at.scene)
    root = Path(f"/proc/{nodes.supervisors(at.lab.state_dir)[host]}/root")
    stages = [path for path in (root / "run/migrate/moves").glob("*/stage") if path.is_mount()]
    if not stages:
        raise NotThere(f"no stage on {host}")
    return _shrink(at.lab, host, Path("/") / stages[-1].relative_to(root))


def _shrink(lab: Lab, host: str, place: Path) -> Heal:
    pid = nodes.supervisors(lab.state_dir)[host]
    inside = Path(f"/proc/{pid}/root") / place.relative_to("/")
    before = os.statvfs(inside)
    mount = ["nsenter", f"--target={pid}", "--mount", "mount", "-o"]
    for _ in range(SHRINK_TRIES):  # somebody may be writing
        now = os.statvfs(inside)
        size = (now.f_blocks - now.f_bfree) * now.f_frsize
        done = subprocess.run([*mount, f"remount,size={size}", str(place)], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break
    else:
        raise NotThere(f"{place} on {host}: {done.stderr.strip()}")

    def heal() -> None:  # a stage goes with its move
        whole = f"remount,size={before.f_blocks * before.f_frsize}"
        subprocess.run([*mount, whole, str(place)], capture_output=True, check=False)

    return heal


def no_memory(victim: Victim, at: Field) -> Heal:
    """The process gets a memory cgroup with no room: the kernel kills it for the next page that it takes."""
    process = at.scene.find(victim)
    if process is None:
        raise NotThere(f"no {victim}")
    memory = next((each.path for each in cgroups.hierarchies() if each.path.name == "memory"), None)
    if memory is None:
        raise NotThere("no memory controller of version 1 on this machine")
    group = memory / at.lab.label / f"oom{next(_numbers)}"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text(str(MEMORY_LIMIT))
    (group / "cgroup.procs").write_text(str(process.pid))

    def heal() -> None:
        killed = "oom_kill 0" not in (group / "memory.oom_control").read_text()
        at.notes.append("killed for want of memory" if killed else "it took no more memory")
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (memory / "cgroup.procs").write_text(pid)
        group.rmdir()

    return heal


# ------------------------------------------------------------ coordinators


def copy_database(lab: Lab, to: Path) -> None:
    """As a backup tool does: whole, whatever is written meanwhile."""
    with contextlib.closing(sqlite3.connect(database(lab))) as db, contextlib.closing(sqlite3.connect(to)) as copy:
        db.backup(copy)


def old_database(at: Field) -> Heal:
    """The coordinator dies, and comes back with its database as it was before the move."""
    node = processes.read(nodes.supervisors(at.lab.state_dir)["controller"])
    coordinator = at.scene.find(Victim.COORDINATOR)
    if node is None or coordinator is None:
        raise NotThere("no coordinator")
    processes.send(node, signal.SIGSTOP)  # or it starts the next one before the file is there
    try:
        processes.send(coordinator, signal.SIGKILL)
        _until_gone(coordinator)
        path = database(at.lab)
        for each in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            each.unlink(missing_ok=True)
        shutil.copy(at.old, path)
        path.chmod(0o600)
    finally:
        processes.send(node, signal.SIGCONT)
    return nothing


def second_coordinator(at: Field) -> Heal:
    """Another one is started on the same directory: it has to refuse."""

    def start() -> None:
        config = provision.ETC / "coordinator.toml"
        try:
            done = subprocess.run(
                _coordinator(at.lab, config), capture_output=True, text=True, timeout=SECOND_LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired:
            at.wrong.append("a second coordinator ran on the same directory")
            return
        if not done.returncode or "another coordinator" not in done.stderr:
            at.wrong.append(f"the second coordinator ended with {done.returncode}: {done.stderr.strip()[-200:]}")

    at.beside(start)
    return nothing


def twin_coordinator(at: Field) -> Heal:
    """Another one is started on a copy of the directory as it is at this instant: it finds the move in its journal and goes on with it,
    as the first one does. Nobody can know of the other.
    """
    directory = at.lab.node_dir("controller")
    name = f"twin{next(_numbers)}"
    copy = directory / "var" / name
    copy.mkdir(mode=0o700)
    for path in (directory / "var").iterdir():
        if path.is_file() and not path.name.startswith("coordinator."):
            shutil.copy(path, copy / path.name)
    copy_database(at.lab, copy / "coordinator.db")
    text = (directory / "etc/migrate/coordinator.toml").read_text()
    text = text.replace(f'"{provision.STATE}"', f'"{provision.STATE / name}"')
    text = text.replace(f'"{provision.RUN}/coordinator.sock"', f'"{provision.RUN}/{name}.sock"')
    (copy / "coordinator.toml").write_text(text)
    with (directory / "log" / f"{name}.log").open("wb") as log:
        twin = subprocess.Popen(
            _coordinator(at.lab, provision.STATE / name / "coordinator.toml"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def heal() -> None:
        with contextlib.closing(sqlite3.connect(copy / "coordinator.db")) as db:
            row = db.execute("select state from migrations order by started_unix_ns desc limit 1").fetchone()
        at.notes.append(f"the twin's journal says {row[0] if row else 'nothing'}")
        if twin.poll() is not None:
            at.wrong.append(
                f"the twin ended with {twin.returncode}: {(directory / 'log' / f'{name}.log').read_text()[-200:]}"
            )
        twin.terminate()
        twin.wait()
        shutil.rmtree(copy)
        for path in (directory / "run").glob(f"{name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return heal


def _coordinator(lab: Lab, config: Path) -> list[str]:
    argv = [sys.executable, "-m", "migrate.coordinator", "--config", str(config)]
    return nodes.command(lab, "controller", ["env", f"PYTHONPATH={provision.SOURCE}", *argv])


# ------------------------------------------------------------ requests


def asked_twice(at: Field) -> Heal:
    """The very request again (its id), and one of somebody else: the first is the same move, the second is refused."""

    def ask() -> None:
        with contextlib.closing(sqlite3.connect(database(at.lab))) as db:
            row = db.execute("select request_id from migrations where id = ?", (at.migration_id,)).fetchone()
        if row is None:
            at.notes.append("the move had no row yet")
            return
        try:
            with Client(at.lab.socket) as fleet:
                again = fleet.move(_name(at), to=at.scene.target, request_id=str(row[0])).result()
            if again.id != at.migration_id:
                at.wrong.append(f"the same request began another move, {again.id}")
        except MigrateError as exc:
            if at.migration_id[:8] not in str(exc):
                at.notes.append(f"asked again: {exc.message}")

    def another() -> None:
        try:
            with Client(at.lab.socket) as fleet:
                other = fleet.move(_name(at), to=at.scene.target).result()
            at.notes.append(f"another request ended {other.state}")
        except MigrateError as exc:
            if not exc.hint:
                at.wrong.append(f"another request was refused without a hint: {exc.message}")

    at.beside(ask)
    at.beside(another)
    return nothing


def _name(at: Field) -> str:
    return at.fleet.inspect(at.scene.container_id).name


def cancelled(at: Field) -> Heal:
    """`migrate cancel`, at this instant."""

    def ask() -> None:
        try:
            with Client(at.lab.socket) as fleet:
                at.notes.append(f"cancel: {fleet.cancel(at.migration_id)[0]}")
        except MigrateError as exc:
            at.notes.append("cancel: refused")
            if not exc.hint:
                at.wrong.append(f"cancel was refused without a hint: {exc.message}")

    at.beside(ask)
    return nothing


def repaired(at: Field) -> Heal:
    """`migrate repair` of a move that goes on by itself."""

    def ask() -> None:
        try:
            with Client(at.lab.socket) as fleet:
                at.notes.append(f"repair: {fleet.repair(at.migration_id).result().state}")
        except MigrateError as exc:
            at.notes.append(f"repair: {exc.code}")
            if not exc.hint:
                at.wrong.append(f"repair was refused without a hint: {exc.message}")

    at.beside(ask)
    return nothing


def late_calls(at: Field) -> Heal:
    """Taken back when the move is over: both hosts hear both words on its end once more, late and in the wrong order."""

    def call() -> None:
        with contextlib.closing(sqlite3.connect(database(at.lab))) as db:
            row = db.execute("select epoch from migrations where id = ?", (at.migration_id,)).fetchone()
        if row is None:
            at.notes.append("the database knows nothing of the move")
            return
        for role, host in (("source", at.scene.source), ("target", at.scene.target)):
            pid = nodes.supervisors(at.lab.state_dir)[host]
            with grpc.insecure_channel(f"unix:/proc/{pid}/root/run/migrate/agent.sock") as channel:
                stub = agent_pb2_grpc.MigrationStub(channel)  # type: ignore[no-untyped-call]
                for committed in (False, True, False):
                    request = agent_pb2.FinishRequest(
                        migration_id=at.migration_id,
                        epoch=int(row[0]),
                        container_id=at.scene.container_id,
                        committed=committed,
                        role=role,
                    )
                    try:
                        stub.Finish(request, timeout=20)
                    except grpc.RpcError as exc:
                        at.notes.append(f"{role}, committed={committed}: {exc.code().name}")

    return call
