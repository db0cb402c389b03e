"""At the target: the tunnel of a move is expected, and what comes through it goes to a receiver (agent/transfer/receiver.py), one a move.

Receivers outlive the agent: one that was started by an agent before this one is known by its pid, in the move's record.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import cycle
from pathlib import Path

from agent.config import AgentConfig
from agent.door import Door, Waiting
from agent.engine import mounted
from agent.engine.container import Engine
from agent.engine.spec import ContainerSpec
from agent.errors import AgentError
from agent.handover import stage
from agent.handover.ended import EndedMoves
from agent.handover.kept import KeptMemory
from agent.handover.record import Move, MoveRecord
from agent.handover.turns import Turns
from agent.linux import process
from agent.setup.criu import CriuInstall
from agent.transfer import later
from agent.transfer.commands import TransferProcess

ROLE = "target"
TUNNEL_LIMIT_S = 900.0

_log = logging.getLogger(__name__)


class Receivers:
    """Of all moves that come to this host."""

    def __init__(
        self,
        config: AgentConfig,
        engine: Engine,
        door: Door,
        criu: Callable[[], CriuInstall],
        ended: EndedMoves,
        turns: Turns,
        kept: KeptMemory,
    ) -> None:
        self._config, self._engine, self._door, self._criu = config, engine, door, criu
        self._ended, self._turns, self._kept = ended, turns, kept
        self._waiting: dict[str, Waiting] = {}
        self._receivers: dict[str, TransferProcess] = {}
        self._guard = threading.Lock()

    def listen(self, move: Move) -> None:
        """Expect the tunnel; its receiver starts when it comes. Nothing to do where one waits or has all."""
        migration_id = move.migration_id
        with self._guard:
            if migration_id in self._waiting or migration_id in self._receivers:
                return
            if move.received.exists() and not lacks_memory(move):
                return
            waiting = self._waiting[migration_id] = self._door.expect(migration_id, move.read().connections)
        threading.Thread(target=self._receive, args=(move, waiting), daemon=True).start()

    def _receive(self, move: Move, waiting: Waiting) -> None:
        migration_id = move.migration_id
        try:
            tunnels = waiting.wait_all(TUNNEL_LIMIT_S)
        except AgentError as exc:
            _log.info("migration %s: no tunnel came: %s", migration_id, exc.message)
            return
        finally:
            with self._guard:
                if (
                    self._waiting.get(migration_id) is waiting
                ):  # else it was discarded, and another one is expected by now
                    del self._waiting[migration_id]
            waiting.close()
        try:
            with self._turns.call(migration_id, "the arrival of the tunnel"):
                if not lacks_memory(move):
                    self._ended.refuse(migration_id, ROLE)
                self._start(move, [(rx_fd, tx_fd, door.fileno()) for rx_fd, tx_fd, door in tunnels])
        except (AgentError, OSError) as exc:
            _log.error("migration %s: the receiver did not start: %s", migration_id, exc)
        finally:
            for rx_fd, tx_fd, door in tunnels:
                os.close(rx_fd)
                os.close(tx_fd)
                door.close()

    def _start(self, move: Move, tunnels: Sequence[tuple[int, int, int]]) -> None:
        record = move.read()
        plan = {
            "host": self._config.host,
            "migration": move.migration_id,
            "images_dir": str(move.images),
            "memory_dir": str(move.memory),
            "logs_dir": str(move.logs),
            "roots": [] if record.committed else self._tree_roots(move, record.container_id),
            "store": str(self._config.images_dir),
            "received": str(move.received),
            "pycriu_path": str(self._criu().pycriu_path),
            "lazy": record.lazy,
            "kept": self._kept.find(record.container_id),
            "again": record.committed,
        }
        path = move.directory / "receiver.json"
        path.write_text(json.dumps(plan))
        names = ("--rx-fd", "--tx-fd", "--door-fd")
        fds = [fd for tunnel in tunnels for fd in tunnel]
        arguments = [word for name, fd in zip(cycle(names), fds, strict=False) for word in (name, str(fd))]
        log = move.directory / "receiver.log"
        receiver = TransferProcess("agent.transfer.receiver", [*arguments, str(path)], pass_fds=tuple(fds), log=log)
        move.update(receiver_pid=receiver.pid, receiver_ticks=process.start_ticks(receiver.pid))
        with self._guard:
            self._receivers[move.migration_id] = receiver

    def _tree_roots(self, move: Move, container_id: str) -> list[str]:
        """Of the trees that come: the writable layer, volumes, tmpfs. Not again when the container runs here: then only memory comes."""
        spec = self._engine.store.spec(container_id)
        return [
            str(self._engine.store.directory(container_id) / "layer" / "upper"),
            *(str(path) for path in volume_paths(self._engine, spec)),
            *(str(path) for path in stage.scratch(move, len(mounted.tmpfs(spec)))),
        ]

    def receives(self, record: MoveRecord) -> bool:
        """Whether this move's receiver is alive, be it ours or that of the agent before us."""
        with self._guard:
            receiver = self._receivers.get(record.migration_id)
        if receiver:
            return receiver.running
        try:
            return bool(record.receiver_pid) and process.start_ticks(record.receiver_pid) == record.receiver_ticks
        except OSError:
            return False

    def stop(self, record: MoveRecord) -> None:
        """The receiver, if there is one. Idempotent."""
        with self._guard:
            receiver = self._receivers.pop(record.migration_id, None)
        if receiver:
            receiver.close()
        elif self.receives(record):
            with suppress(OSError):  # it has ended
                os.kill(record.receiver_pid, signal.SIGTERM)

    def discard(self, move: Move) -> None:
        """Expect no tunnel any more, and stop what has one. Idempotent."""
        with self._guard:
            waiting = self._waiting.pop(move.migration_id, None)
        if waiting:
            waiting.close()
        if move.exists:
            self.stop(move.read())


def lacks_memory(move: Move) -> bool:
    """Post-copy: whether the container runs here and some of its memory is not here. Raises TransferError when that cannot be told."""
    return move.exists and move.read().committed and bool(later.still_missing(move.images))


def volume_paths(engine: Engine, spec: ContainerSpec) -> list[Path]:
    """Of those that come with it, in the order of its mounts."""
    return [engine.volumes.path(each) for each in engine.volumes.of(spec) if not each.shared]
