"""The source's side of a move: describe, tunnel, layers, precopy, freeze, finish. Every call is idempotent.

Who dies when, and what then: docs/migration.md. The tasks are never killed here but by finish(committed=True), and never thawed
after it.
"""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.config import AgentConfig
from agent.criu import fixup, images, log, options
from agent.engine import init, network
from agent.engine.container import Engine
from agent.engine.launch import MonitorError
from agent.engine.spec import ContainerSpec
from agent.engine.state import State
from agent.errors import AgentError, CriuError, NotFound, StaleEpoch, WrongState
from agent.handover import inside, stage
from agent.handover.record import Move, MoveRecord
from agent.setup.criu import CriuInstall
from agent.storage.layers import WritableLayer
from agent.transfer.commands import TransferProcess

ROLE = "source"
DUMP_LIMIT_S = 120.0
DEFAULT_MAX_DOWNTIME_S = 0.3
DEFAULT_MAX_ROUNDS = 10
SKELETON_STAGE_BYTES = 512 << 20  # images and what memory cannot be lazy; a plain dump needs room for all of it

Progress = Callable[[Mapping[str, Any]], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Description:
    spec: ContainerSpec
    state: State
    memory_bytes: int
    layer_bytes: int
    tasks: int
    blockers: list[inside.Blocker]


@dataclass(kw_only=True)
class Frozen:
    """FreezeResult of protos/agent.proto."""

    marks: list[dict[str, Any]]
    sent_bytes: dict[str, int]
    memory_pages: int
    digest: str
    criu_stats: dict[str, float] = field(default_factory=dict)


class Source:
    """All moves that leave this host."""

    def __init__(
        self, config: AgentConfig, engine: Engine, criu: Callable[[], CriuInstall], *, lazy: bool, tracker: str
    ) -> None:
        """`criu`: found when needed, so that containers run on a host without it. `lazy`: the kernel has userfaultfd.

        `tracker`: the kernel's way to see writes, a key of agent.transfer.precopy.TRACKERS, or "".
        """
        self._config, self._engine, self._criu = config, engine, criu
        self._lazy, self._tracker = lazy, tracker
        self._senders: dict[str, TransferProcess] = {}
        self._sent_layers: dict[str, int] = {}
        self._precopied: dict[str, int] = {}
        self._guard = threading.Lock()

    # ------------------------------------------------------------ before the freeze

    def describe(self, container_id: str) -> Description:
        """Read-only. Raises NotFound."""
        status = self._engine.inspect(container_id)
        pids = self._engine.cgroup(container_id).procs()
        layer = WritableLayer(self._engine.store.directory(container_id) / "layer")
        return Description(
            spec=status.spec,
            state=status.state,
            memory_bytes=inside.memory_bytes(pids),
            layer_bytes=layer.size_bytes(),
            tasks=len(pids),
            blockers=inside.blockers(status.pid, pids),
        )

    def prepare_tunnel(self, migration_id: str, epoch: int, container_id: str) -> str:
        """Take the part of the source; returns the public key of this move."""
        move = self._move(migration_id)
        self._engine.set_role(container_id, migration_id, ROLE, epoch)
        move.begin(
            MoveRecord(migration_id=migration_id, container_id=container_id, role=ROLE, epoch=epoch, lazy=self._lazy)
        )
        memory = 0 if self._lazy else inside.memory_bytes(self._engine.cgroup(container_id).procs())
        stage.mount(move, SKELETON_STAGE_BYTES + memory)
        self._close_sender(migration_id)
        sender = TransferProcess("agent.transfer.sender", [str(move.directory)], log=move.directory / "sender.log")
        with self._guard:
            self._senders[migration_id] = sender
        return str(sender.request("key")["public_key"])

    def open_tunnel(self, migration_id: str, epoch: int, **target: Any) -> dict[str, Any]:
        """ssh to the target, warm. `target`: certificate, address, port, user, host_keys."""
        self._move(migration_id).require(epoch)
        pycriu_path = self._criu().pycriu_path
        images.load(pycriu_path)  # here, while the container runs: the first time takes a fifth of a second
        return self._sender(migration_id).request(
            "open", migration=migration_id, pycriu_path=str(pycriu_path), **target
        )

    def send_layers(self, migration_id: str, epoch: int, layers: list[str], progress: Progress) -> int:
        """Returns bytes sent."""
        self._move(migration_id).require(epoch)
        answer = self._sender(migration_id).request(
            "layers", progress, layers=layers, store=str(self._config.images_dir)
        )
        self._sent_layers[migration_id] = int(answer["sent_bytes"])
        return int(answer["sent_bytes"])

    def precopy(
        self, migration_id: str, epoch: int, max_downtime_s: float, max_rounds: int, progress: Progress
    ) -> dict[str, Any]:
        """Send what can be sent while the container runs: files, then memory in rounds. Returns the last report."""
        record = self._move(migration_id).require(epoch)
        directory = self._engine.store.directory(record.container_id)
        answer = self._sender(migration_id).request(
            "precopy",
            progress,
            root=str(directory / "layer" / "upper"),
            logs=str(directory),
            freezer=str(self._engine.cgroup(record.container_id).freezer),
            tracker=self._tracker if record.lazy else "",
            max_downtime_s=max_downtime_s or DEFAULT_MAX_DOWNTIME_S,
            max_rounds=max_rounds or DEFAULT_MAX_ROUNDS,
        )
        memory = answer["memory"]
        self._precopied[migration_id] = int(answer["layer_bytes"]) + int(memory["sent_bytes"])
        return {
            "text": f"{memory['rounds']} rounds of memory: {memory['why']}",
            "done_bytes": self._precopied[migration_id],
            "facts": {
                "rounds": memory["rounds"],
                "memory_bytes": memory["sent_bytes"],
                "layer_bytes": answer["layer_bytes"],
                "predicted_downtime_s": memory["predicted_s"],
                "untracked_tasks": memory["untracked"],
            },
        }

    # ------------------------------------------------------------ the freeze

    def freeze(self, migration_id: str, epoch: int, progress: Progress) -> Frozen:
        """Dump, hold frozen, send the rest; returns when the target has confirmed it. Any error leaves the undo to finish()."""
        move = self._move(migration_id)
        record = move.require(epoch)
        sender = self._sender(migration_id)
        criu = self._criu()
        directory = self._engine.store.directory(record.container_id)
        upper = directory / "layer" / "upper"
        marks = self._dump(move, record, criu)
        pids = self._engine.cgroup(record.container_id).procs()  # no task comes or goes any more
        answer = sender.request(
            "final",
            progress,
            images_dir=str(move.images),
            pids=pids,
            root=str(upper),
            always=inside.mapped_shared(pids, upper),
            logs=str(directory),
        )
        sent = {name: int(size) for name, size in answer["sent_bytes"].items()}
        for kind, before in (("layers", self._sent_layers), ("precopy", self._precopied)):
            if migration_id in before:
                sent[kind] = before[migration_id]
        return Frozen(
            marks=[*marks, *answer["marks"]],
            sent_bytes=sent,
            memory_pages=int(answer["memory_pages"]),
            digest=str(answer["digest"]),
            criu_stats=images.stats(images.load(criu.pycriu_path), move.images / "stats-dump"),
        )

    def _dump(self, move: Move, record: MoveRecord, criu: CriuInstall) -> list[dict[str, Any]]:
        container_id = record.container_id
        spec = self._engine.store.spec(container_id)
        monitor = self._engine.monitor(container_id)
        status = monitor.request("status").fields
        stdio = options.Stdio(**status["stdio_keys"])
        (move.images / "handover.json").write_text(json.dumps({"stdio": status["stdio_keys"]}))
        request = options.dump(
            options.load(criu.pycriu_path),
            pid=int(status["pid"]),
            root=self._engine.store.directory(container_id) / "rootfs",
            images_dir=move.images,
            external=init.external_mounts(),
            stdio=stdio,
            skeleton=record.lazy,
        )
        plan = {
            "binary": str(criu.binary),
            "request": base64.b64encode(request).decode(),
            "neighbours": str(move.images / "neighbours.json"),
            "stdin": str(move.images / "stdin.bin"),
            "unlink": network.unlink_commands(spec),
            "relink": network.relink_commands(spec, self._config.bridge),
        }
        try:
            monitor.request("dump", timeout_s=DUMP_LIMIT_S, plan=plan)
            self._sender(record.migration_id).request("look")
            return list(monitor.request("hold", timeout_s=DUMP_LIMIT_S)["marks"])
        except MonitorError as exc:
            raise criu_error("dump", move.images / "dump.log", exc) from exc

    # ------------------------------------------------------------ the end

    def finish(
        self, migration_id: str, epoch: int, container_id: str, *, committed: bool
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Committed: the frozen tasks die and nothing stays. Else: the container runs on as if nothing had been. (marks, left over)"""
        move = self._move(migration_id)
        self._check_epoch(container_id, migration_id, epoch)
        self._close_sender(migration_id)
        marks: list[dict[str, Any]] = []
        if committed:
            if move.exists:
                move.update(committed=True)
            marks = self._release(container_id, migration_id)
        else:
            marks = self._run_on(container_id, migration_id, epoch)
        stage.unmount(move)
        move.forget()
        self._sent_layers.pop(migration_id, None)
        self._precopied.pop(migration_id, None)
        return marks, []

    def _release(self, container_id: str, migration_id: str) -> list[dict[str, Any]]:
        try:
            status = self._engine.inspect(container_id)
        except NotFound:
            return []  # released before
        if status.migration_id != migration_id:
            raise WrongState(
                f"container {container_id} takes no part in migration {migration_id} here: it is not killed"
            )
        if status.state == State.RUNNING:
            raise WrongState(
                f"container {container_id} runs here after the pivot: it is not killed",
                hint=f"migrate repair {migration_id}",
            )
        marks: list[dict[str, Any]] = []
        try:
            marks = list(self._engine.monitor(container_id).request("release")["marks"])
        except (MonitorError, WrongState) as exc:
            _log.warning("container %s: %s; its frozen tasks are killed without its monitor", container_id, exc.message)
        self._engine.forget(container_id, discard=True)
        return marks

    def _run_on(self, container_id: str, migration_id: str, epoch: int) -> list[dict[str, Any]]:
        try:
            status = self._engine.inspect(container_id)
        except NotFound:
            return []  # this host never had it, or it has moved on
        if status.migration_id not in (migration_id, ""):
            return []  # another move has begun since
        marks: list[dict[str, Any]] = []
        if status.state in (State.RUNNING, State.FROZEN, State.LOST):
            try:
                marks = list(self._engine.monitor(container_id).request("rollback")["marks"])
            except (MonitorError, WrongState) as exc:
                _log.warning("container %s: %s; it is thawed without its monitor", container_id, exc.message)
                self._thaw_by_hand(status.spec, status.pid)
        self._engine.set_role(container_id, "", "", epoch)
        return marks

    def _thaw_by_hand(self, spec: ContainerSpec, pid: int) -> None:
        """The monitor is dead, and CRIU, if it held the tasks, saw that and let them go: into the freezer."""
        cgroup = self._engine.cgroup(spec.id)
        if spec.network.address:
            network.reattach(spec.id, self._config.bridge)
        if pid:
            fixup.free_after_criu(pid, cgroup.procs())
        cgroup.freeze(False)

    # ------------------------------------------------------------ parts

    def _check_epoch(self, container_id: str, migration_id: str, epoch: int) -> None:
        move = self._move(migration_id)
        if move.exists:
            move.require(epoch)
        try:
            record = self._engine.store.record(container_id)
        except NotFound:
            return
        if record.epoch > epoch:
            raise StaleEpoch(f"container {container_id} has epoch {record.epoch} here, the call has {epoch}")

    def _move(self, migration_id: str) -> Move:
        return Move(self._config.moves_dir, migration_id, ROLE)

    def _sender(self, migration_id: str) -> TransferProcess:
        with self._guard:
            sender = self._senders.get(migration_id)
        if sender is None:
            raise WrongState(
                f"migration {migration_id} has no tunnel here: the agent was restarted", code="migration.no_tunnel"
            )
        return sender

    def _close_sender(self, migration_id: str) -> None:
        with self._guard:
            sender = self._senders.pop(migration_id, None)
        if sender:
            sender.close()

    def close(self) -> None:
        for migration_id in list(self._senders):
            self._close_sender(migration_id)


def criu_error(verb: str, path: Path, exc: AgentError) -> CriuError:
    """What CRIU's log says, else what the monitor heard."""
    finding = log.first_error(path)  # complete: the monitor answers when CRIU has ended
    if finding is None:
        return CriuError(f"{verb} failed: {exc.message}")
    meaning = f" ({finding.meaning})" if finding.meaning else ""
    return CriuError(f"{verb} failed: {finding.error}{meaning}", hint=finding.remedy, detail=finding.context)
