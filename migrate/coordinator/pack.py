"""Moves as protobuf messages; nothing else."""

from __future__ import annotations

import dataclasses
import json

from migrate.coordinator.events import Done, Event, MigrationRecord, Progress, StepEvent
from migrate.coordinator.preflight.report import Report
from migrate.errors import ErrorRecord
from protos import coordinator_pb2, types_pb2


def event(migration_id: str, happened: Event) -> coordinator_pb2.MoveEvent:
    if isinstance(happened, Progress):
        return coordinator_pb2.MoveEvent(migration_id=migration_id, progress=progress(happened))
    if isinstance(happened, StepEvent):
        return coordinator_pb2.MoveEvent(migration_id=migration_id, step=step(happened))
    assert isinstance(happened, Done)
    return coordinator_pb2.MoveEvent(migration_id=migration_id, done=record(happened.record))


def progress(line: Progress) -> types_pb2.Progress:
    return types_pb2.Progress(
        phase=line.phase,
        text=line.text,
        done_bytes=line.done_bytes,
        total_bytes=line.total_bytes,
        facts=dict(line.facts),
        unix_ns=line.unix_ns,
    )


def step(row: StepEvent) -> coordinator_pb2.StepEvent:
    return coordinator_pb2.StepEvent(
        step=row.step,
        event=row.event,
        unix_ns=row.unix_ns,
        facts_json=json.dumps(dict(row.facts)) if row.facts else "",
        error=row.error,
    )


def record(whole: MigrationRecord) -> coordinator_pb2.MigrationRecord:
    move = whole.migration
    message = coordinator_pb2.MigrationRecord(
        migration_id=move.id,
        container_id=move.container_id,
        container=move.container,
        source=move.source,
        target=move.target,
        state=move.state,
        step=whole.step,
        reason=move.reason,
        mode=move.mode,
        started_unix_ns=move.started_unix_ns,
        finished_unix_ns=move.finished_unix_ns,
        epoch=move.epoch,
        journal=[step(row) for row in whole.journal],
        facts=dict(whole.facts),
        sent_bytes=dict(whole.sent_bytes),
        marks=[types_pb2.Mark(name=mark.name, unix_ns=mark.unix_ns, host=mark.host) for mark in whole.marks],
        transfer=types_pb2.TransferOptions(**dataclasses.asdict(move.transfer)),
        travelled=types_pb2.Travelled(**whole.travelled),
        max_downtime_s=move.max_downtime_s,
        precopy=types_pb2.PrecopyOptions(**dataclasses.asdict(move.precopy)),
        rehearsal=move.rehearsal,
        policies=move.policies,
        priority=move.priority,
    )
    if move.error is not None:
        message.error.CopyFrom(error(move.error))
    return message


def error(found: ErrorRecord) -> types_pb2.ErrorDetail:
    return types_pb2.ErrorDetail(
        code=found.code, message=found.message, hint=found.hint, touched=found.touched, detail=found.detail
    )


def report(found: Report) -> coordinator_pb2.CheckReport:
    prediction = found.prediction
    return coordinator_pb2.CheckReport(
        container_id=found.container_id,
        container=found.container,
        source=found.source,
        target=found.target,
        mode=found.mode,
        findings=[
            coordinator_pb2.CheckFinding(**dataclasses.asdict(one), skippable=one.skippable) for one in found.findings
        ],
        prediction=coordinator_pb2.Prediction(
            downtime_s=prediction.downtime_s,
            downtime_because=prediction.downtime_because,
            total_s=prediction.total_s,
            total_because=prediction.total_because,
            memory_bytes=found.size.memory,
            layer_bytes=found.size.layer,
            image_bytes=found.size.image,
            missing_layers=found.size.missing_layers,
            bytes_per_s=prediction.bytes_per_s,
            round_trip_s=prediction.round_trip_s,
        ),
        plan=found.plan,
    )
