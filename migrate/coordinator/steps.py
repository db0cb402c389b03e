"""The steps of a move: one class each, `do` and `undo` side by side.

Every call to an agent has a deadline and carries the move's id and the epoch from before the pivot; every call is
idempotent on the agent's side, so a step that a crash cut in two is simply done again.
"""
# ruff: noqa: ARG002  every step gets the results of those before it, whether it needs them or not

from __future__ import annotations

import dataclasses
import time
from typing import Any

from migrate.coordinator.checks import describe, examine, refuse, state_name, where
from migrate.coordinator.events import Progress
from migrate.coordinator.move import Move
from migrate.coordinator.preflight.predict import Known, predict
from migrate.errors import MigrateError, NeedsAttention, StepError, Unreachable
from migrate.saga.journal import SAGA, Event, Facts, Results
from protos import agent_pb2, types_pb2

POSTCOPY, ON_TIMEOUT_POSTCOPY = "postcopy", "post-copy"  # a mode; a way to end sending ahead
SHORT_S = 30.0  # deadline of what moves no bulk data
RESTORE_S = 120.0
TRY_S = 600.0  # a health check may take long, and be repeated
HOLD_S = 7 * 24 * 3600.0  # whom nobody commits by then, nobody will
UNDO_LOOK_S = 5.0  # of the first call of an undo: the source stays frozen for as long as the target does not answer it
BULK_S = 120.0  # of a stream, besides the time for its bytes ...
SLOWEST_BYTES_PER_S = 2 << 20  # ... at the speed below which a move makes no sense, unless its user wants it slower
MAX_ROUNDS = (
    30  # the policy on the source ends precopy long before, except for a container that changes faster than it sends
)


class Precheck:
    """Say no while saying no costs nothing."""

    name = "precheck"

    def do(self, move: Move, done: Results) -> Facts:
        examination = examine(move)
        if examination.blockers:
            raise refuse(move.container, move.target, examination.blockers)
        seen = examination.description
        facts: dict[str, Any] = {
            "memory_bytes": seen.memory_bytes,
            "layer_bytes": seen.layer_bytes,
            "tasks": seen.tasks,
            "predicted_downtime_s": predict(
                examination.size,
                Known(fixed_s=move.precopy.fixed_s),
                mode=move.mode,
                max_downtime_s=move.max_downtime_s,
                lazy=examination.lazy,
                bandwidth=move.transfer().bandwidth,
            ).downtime_s,
        }
        if examination.findings:  # none of them a blocker: warnings, and what was to be skipped
            facts["findings"] = [f"{each.severity}: {each}" for each in examination.findings]
        return facts

    def undo(self, move: Move) -> None:
        """It has only looked."""


class Reserve:
    """The target keeps id, address, memory and disk for the container."""

    name = "reserve"

    def do(self, move: Move, done: Results) -> Facts:
        seen = describe(move)
        connections = move.transfer().connections
        request = agent_pb2.AcceptRequest(
            migration_id=move.id,
            epoch=move.epoch,
            spec=seen.spec,
            image=seen.image,
            memory_bytes=seen.memory_bytes,
            layer_bytes=seen.layer_bytes,
            source_host=move.source,
            volumes=seen.volumes,
            rehearsal=move.rehearsal,
            connections=connections,
        )
        accepted = move.call(move.target, "Accept", request, timeout_s=SHORT_S)
        if connections > 1 and accepted.connections != connections:
            raise StepError(
                f"{move.target} takes one connection for a move, not {connections}: its agent is older",
                hint="upgrade it, or: migrate move without --connections",
            )
        may = move.mode == POSTCOPY or move.precopy.on_timeout == ON_TIMEOUT_POSTCOPY
        if may and accepted.restore_mode != "lazy":
            raise StepError(
                f"{move.target} cannot run a container before all of its memory is there: its kernel has no userfaultfd",
                hint="migrate move without --mode postcopy, without --on-timeout post-copy",
            )
        return {
            "missing_layers": list(accepted.missing_layers),
            "restore_mode": accepted.restore_mode,
            "image_bytes": seen.image.size_bytes,
        }

    def undo(self, move: Move) -> None:
        _discard_at_target(move)


class Tunnel:
    """A warm ssh from source to target; the private key never leaves the source, the certificate lives minutes."""

    name = "tunnel"

    def do(self, move: Move, done: Results) -> Facts:
        return open_tunnel(move)

    def undo(self, move: Move) -> None:
        _run_on_at_source(move)


def open_tunnel(move: Move) -> Facts:
    key = move.call(
        move.source,
        "PrepareTunnel",
        agent_pb2.PrepareTunnelRequest(
            migration_id=move.id, epoch=move.epoch, container_id=move.container_id, rehearsal=move.rehearsal
        ),
        timeout_s=SHORT_S,
    ).public_key
    target = move.agents.address(move.target)
    request = agent_pb2.OpenTunnelRequest(
        migration_id=move.id,
        epoch=move.epoch,
        container_id=move.container_id,
        certificate=move.signer.sign_bulk(key, move.id, move.agents.address(move.source).address),
        address=target.address,
        port=target.port,
        user=target.user,
        host_keys=target.host_keys,
        transfer=types_pb2.TransferOptions(**dataclasses.asdict(move.transfer())),
    )
    opened = move.call(move.source, "OpenTunnel", request, timeout_s=SHORT_S)
    return {"connect_s": opened.connect_s, "round_trip_s": opened.round_trip_s, "cipher": opened.cipher}


class Layers:
    """Image layers that the target said it lacks, by digest."""

    name = "layers"

    def do(self, move: Move, done: Results) -> Facts:
        missing = done["reserve"]["missing_layers"]
        if not missing:
            return {"layers": 0, "done_bytes": 0}
        request = agent_pb2.SendLayersRequest(migration_id=move.id, epoch=move.epoch, layers=missing)
        limit_s = deadline_s(move, done["reserve"]["image_bytes"])
        done_bytes = 0
        for progress in move.stream(move.source, "SendLayers", request, timeout_s=limit_s):
            done_bytes = progress.done_bytes
            move.pass_on(progress)
        return {"layers": len(missing), "done_bytes": done_bytes}

    def undo(self, move: Move) -> None:
        """The sender stops; layers that have arrived may stay, they are named by their content."""
        _run_on_at_source(move)


class Precopy:
    """Rounds of what has changed, while the container runs, until what is left fits the downtime wanted."""

    name = "precopy"

    def do(self, move: Move, done: Results) -> Facts:
        request = agent_pb2.PrecopyRequest(
            migration_id=move.id,
            epoch=move.epoch,
            max_downtime_s=move.max_downtime_s,
            precopy=_precopy_options(move),
        )
        facts: dict[str, float] = {}
        text, rounds = "", list[dict[str, Any]]()
        limit_s = deadline_s(move, _container_bytes(done) * MAX_ROUNDS) + move.precopy.timeout_s
        try:
            for progress in move.stream(move.source, "Precopy", request, timeout_s=limit_s):
                facts, text = dict(progress.facts), progress.text
                if "round" in facts:
                    rounds.append({**facts, "verdict": progress.verdict})
                move.pass_on(progress)
        except MigrateError as exc:
            exc.facts = {"each_round": rounds}  # why it ended is in them
            raise
        return {**facts, "text": text, "each_round": rounds}

    def undo(self, move: Move) -> None:
        _run_on_at_source(move)


def _precopy_options(move: Move) -> types_pb2.PrecopyOptions:
    """Post-copy sends what does not change ahead, once: what is written meanwhile follows, it need not be small."""
    asked = move.precopy
    if move.mode == POSTCOPY:
        asked = dataclasses.replace(asked, max_rounds=asked.max_rounds or 1, on_timeout=ON_TIMEOUT_POSTCOPY)
    return types_pb2.PrecopyOptions(**dataclasses.asdict(asked))


class Hold:
    """All is ready; what changes goes on being sent and the container runs on, until somebody commits the move."""

    name = "hold"

    def do(self, move: Move, done: Results) -> Facts:
        told = move.journal.has(SAGA, Event.COMMIT_REQUESTED)
        if told:
            switch_over(move)
        facts: dict[str, float] = {}
        request = agent_pb2.HoldRequest(migration_id=move.id, epoch=move.epoch)
        for progress in move.stream(move.source, "Hold", request, timeout_s=HOLD_S):
            facts = dict(progress.facts)
            move.pass_on(progress)
            if not told and move.journal.has(SAGA, Event.COMMIT_REQUESTED):
                told = True  # who asked may have told the source, or have died before
                switch_over(move)
        return facts

    def undo(self, move: Move) -> None:
        _run_on_at_source(move)


def switch_over(move: Move) -> None:
    """Let the source's Hold end. Idempotent; also before it has begun."""
    move.call(move.source, "Switch", agent_pb2.SwitchRequest(migration_id=move.id, epoch=move.epoch), timeout_s=SHORT_S)


class EndExec:
    """Only with --end-exec: what came in by exec is ended, right before the freeze. It does not come back."""

    name = "end-exec"

    def do(self, move: Move, done: Results) -> Facts:
        request = agent_pb2.EndExecRequest(migration_id=move.id, epoch=move.epoch)
        reply = move.call(move.source, "EndExec", request, timeout_s=SHORT_S)
        ended = [f"`{one.command}` (pid {one.pid} inside, {one.signal})" for one in reply.ended]
        if ended:
            text = f"ended what came in by exec: {', '.join(ended)}"
            now_ns = time.time_ns()
            move.report(Progress(phase=self.name, text=text, done_bytes=0, total_bytes=0, facts={}, unix_ns=now_ns))
        return {"ended": ended}

    def undo(self, move: Move) -> None:
        _run_on_at_source(move)


class Freeze:
    """The container stops, frozen in the source's kernel, and the target gets all that it does not have yet."""

    name = "freeze"

    def do(self, move: Move, done: Results) -> Facts:
        rest_later = move.mode == POSTCOPY or bool(done.get(Precopy.name, {}).get("rest_later"))
        request = agent_pb2.FreezeRequest(migration_id=move.id, epoch=move.epoch, postcopy=rest_later)
        result = None
        for event in move.stream(move.source, "Freeze", request, timeout_s=deadline_s(move, _container_bytes(done))):
            if event.HasField("progress"):
                move.pass_on(event.progress)
            else:
                result = event.result
        if result is None:
            raise StepError(f"{move.source} ended the freeze without a result")
        return {
            "marks": _marks(result.marks),
            "sent_bytes": dict(result.sent_bytes),
            "memory_pages": result.memory_pages,
            "criu_stats": dict(result.criu_stats),
            "digest": result.digest,
            "travelled": {
                "raw_bytes": dict(result.travelled.raw_bytes),
                "codec_bytes": dict(result.travelled.codec_bytes),
                "skipped_bytes": dict(result.travelled.skipped_bytes),
            },
            "later_bytes": result.later_bytes,
        }

    def undo(self, move: Move) -> None:
        """UNDONE means that the source has run since, and so that any copy on the target is of the past."""
        _run_on_at_source(move)


class Restore:
    """The container's tasks exist on the target, frozen, link down. Nothing runs there yet."""

    name = "restore"

    def do(self, move: Move, done: Results) -> Facts:
        request = agent_pb2.RestoreRequest(migration_id=move.id, epoch=move.epoch, digest=done["freeze"]["digest"])
        restored = move.call(move.target, "Restore", request, timeout_s=RESTORE_S)
        return {
            "pid": restored.pid,
            "marks": _marks(restored.marks),
            "criu_stats": dict(restored.criu_stats),
            "mode": restored.mode,
        }

    def undo(self, move: Move) -> None:
        _discard_at_target(move)


class Try:
    """Of a rehearsal: the target's copy runs, sealed off, while the container runs on at the source."""

    name = "try"

    def do(self, move: Move, done: Results) -> Facts:
        tried = move.call(
            move.target, "Try", agent_pb2.TryRequest(migration_id=move.id, epoch=move.epoch), timeout_s=TRY_S
        )
        facts = {
            "passed": tried.passed,
            "text": tried.text,
            "health": tried.health,
            "tasks": tried.tasks,
            "marks": _marks(tried.marks),
        }
        if not tried.passed:
            failure = StepError(
                f"the copy of {move.container} on {move.target} is not well: {tried.text}",
                hint=f"what does it need that {move.target} or a sealed network does not have? Its logs: migrate doctor {move.id}",
            )
            failure.facts = facts
            raise failure
        return facts

    def undo(self, move: Move) -> None:
        _discard_at_target(move)


class Resume:
    """The target's copy runs: the only one that may."""

    name = "resume"

    def do(self, move: Move, done: Results) -> Facts:
        try:
            return _finish(move, move.target, "target", committed=True)
        except Unreachable:
            raise
        except MigrateError as exc:
            here = where(move, move.target)
            if here.epoch > move.epoch and here.state in _WAS_RESUMED:
                return {"marks": [], "left_over": []}  # an earlier try has done it and its answer was lost
            if here.present and here.state in HAS_TASKS:
                raise  # it waits there, or runs and the host cannot write that down: it is told again
            raise NeedsAttention(
                f"{move.target} has lost {move.container} before it ran there: {_seen(here)}; {exc.message}",
                hint=f"the container is still frozen on {move.source}; to let it run on there: "
                f"migrate repair {move.id} --keep source",
            ) from exc


class Release:
    """The source's frozen tasks die and nothing of the container is left there."""

    name = "release"

    def do(self, move: Move, done: Results) -> Facts:
        try:
            return _finish(move, move.source, "source", committed=True)
        except Unreachable:
            raise
        except MigrateError as exc:
            there = where(move, move.source)
            if there.state in HAS_TASKS:
                raise
            return {"marks": [], "left_over": [exc.message] if there.present else []}  # nothing that could run is left


# LOST is a container whose monitor has died: its tasks run.
HAS_TASKS = (
    types_pb2.CONTAINER_STATE_RUNNING,
    types_pb2.CONTAINER_STATE_FROZEN,
    types_pb2.CONTAINER_STATE_LOST,
    types_pb2.CONTAINER_STATE_PAUSED,
)
_WAS_RESUMED = (
    types_pb2.CONTAINER_STATE_RUNNING,
    types_pb2.CONTAINER_STATE_LOST,
    types_pb2.CONTAINER_STATE_PAUSED,
    types_pb2.CONTAINER_STATE_EXITED,
    types_pb2.CONTAINER_STATE_RESTARTING,
)


def _finish(move: Move, host: str, role: str, *, committed: bool) -> Facts:
    request = agent_pb2.FinishRequest(
        migration_id=move.id, epoch=move.epoch, container_id=move.container_id, committed=committed, role=role
    )
    reply = move.call(host, "Finish", request, timeout_s=SHORT_S)
    left_over = list(reply.left_over)
    if left_over:
        text = f"left over on {host}: {', '.join(left_over)}"
        move.report(Progress(phase="finish", text=text, done_bytes=0, total_bytes=0, facts={}, unix_ns=time.time_ns()))
    return {"marks": _marks(reply.marks), "left_over": left_over}


def _run_on_at_source(move: Move) -> None:
    """The source forgets the move: nothing is sent any more and the container runs as before."""
    if move.journal.has(Restore.name, Event.STARTED) and not move.journal.has(Restore.name, Event.UNDONE):
        _refuse_without_a_copy_at_source(move)
    _finish(move, move.source, "source", committed=False)


def _discard_at_target(move: Move) -> None:
    """The target forgets the move. Raises NeedsAttention rather than kill the only copy.

    The target's copy is frozen and only a commit lets it run, so keeping it for a while is safe.
    """
    here = where(move, move.target, timeout_s=UNDO_LOOK_S)
    ours = here.migration_id == move.id and here.state in HAS_TASKS
    if ours and not move.journal.has(Freeze.name, Event.UNDONE):
        _refuse_without_a_copy_at_source(move)
    _finish(move, move.target, "target", committed=False)


def _refuse_without_a_copy_at_source(move: Move) -> None:
    """Raises NeedsAttention, or Unreachable, while the target's copy may be the only one; an operator may overrule."""
    if move.rehearsal:
        return  # the target's copy is of the past as soon as the freeze is over
    decision = move.journal.last(SAGA, Event.ABORTING)
    if decision is not None and decision.data.get("keep") == "source":
        return
    if move.journal.results().get(Freeze.name, {}).get("later_bytes"):
        return  # post-copy: without the source's memory the target's copy is none
    there = where(move, move.source)
    if there.state not in HAS_TASKS:
        raise NeedsAttention(
            f"the only copy of {move.container} may be the frozen one on {move.target}: "
            f"on {move.source} it is {_seen(there)}",
            hint=f"migrate repair {move.id} --keep target; or --keep source, which discards that copy",
        )


def _seen(answer: agent_pb2.WhereResponse) -> str:
    return state_name(answer.state) if answer.present else "absent"


def _marks(marks: Any) -> list[dict[str, Any]]:
    return [{"name": mark.name, "unix_ns": mark.unix_ns} for mark in marks]


def _container_bytes(done: Results) -> int:
    return int(done["precheck"]["memory_bytes"]) + int(done["precheck"]["layer_bytes"])


def deadline_s(move: Move, size_bytes: int) -> float:
    return BULK_S + size_bytes / min(SLOWEST_BYTES_PER_S, move.transfer().bandwidth or SLOWEST_BYTES_PER_S)
