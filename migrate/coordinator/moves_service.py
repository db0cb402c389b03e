"""The calls of the service Fleet that are about moves."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator

from migrate.coordinator import choose, pack
from migrate.coordinator.agents import AgentPool
from migrate.coordinator.checks import refuse
from migrate.coordinator.containers import Call
from migrate.coordinator.moves import MoveRunner
from migrate.coordinator.orders import MoveOrder
from migrate.coordinator.store import PrecopyOptions, Store, TransferOptions
from migrate.errors import WrongState
from migrate.placement.ranking import because
from protos import agent_pb2, coordinator_pb2, types_pb2

CHECKED = "checked"  # the state in a dry run's record, which is kept nowhere


class MoveCalls:
    """Mixed into FleetService."""

    def __init__(self, store: Store, pool: AgentPool, runner: MoveRunner) -> None:
        self._store = store
        self._pool = pool
        self._runner = runner

    def Move(self, request: coordinator_pb2.MoveRequest, context: Call) -> Iterator[coordinator_pb2.MoveEvent]:  # noqa: N802, ARG002
        order = _order(request)
        if not order.to:
            order, line = self._with_target(order, request.constraints)
            yield coordinator_pb2.MoveEvent(progress=line)
        if request.dry_run:
            yield from self._checked(order)
            return
        migration_id = self._runner.start(order)
        for happened in self._runner.watch(migration_id):
            yield pack.event(migration_id, happened)

    def Rehearse(self, request: coordinator_pb2.MoveRequest, context: Call) -> Iterator[coordinator_pb2.MoveEvent]:  # noqa: N802, ARG002
        order = dataclasses.replace(_order(request), rehearsal=True)
        if not order.to:
            order, line = self._with_target(order, request.constraints)
            yield coordinator_pb2.MoveEvent(progress=line)
        migration_id = self._runner.start(order)
        for happened in self._runner.watch(migration_id):
            yield pack.event(migration_id, happened)

    def Check(self, request: coordinator_pb2.MoveRequest, context: Call) -> coordinator_pb2.CheckReport:  # noqa: N802, ARG002
        order = _order(request)
        if not order.to:
            order, _ = self._with_target(order, request.constraints)
        return pack.report(self._runner.check(order))

    def Watch(self, request: coordinator_pb2.WatchRequest, context: Call) -> Iterator[coordinator_pb2.MoveEvent]:  # noqa: N802, ARG002
        migration_id = self._store.migration(request.migration_id).id
        for happened in self._runner.watch(migration_id):
            yield pack.event(migration_id, happened)

    def Cancel(self, request: coordinator_pb2.CancelRequest, context: Call) -> coordinator_pb2.CancelResponse:  # noqa: N802, ARG002
        answer = self._runner.cancel(request.migration_id)
        record = self._runner.record(request.migration_id)
        committed = any(row.event == "committed" for row in record.journal)
        if committed or (record.migration.finished_unix_ns and answer.text.startswith("too late")):
            raise WrongState(answer.text, hint=f"migrate migrations show {record.migration.id}")
        return coordinator_pb2.CancelResponse(state=answer.state, text=answer.text)

    def CommitMove(  # noqa: N802
        self,
        request: coordinator_pb2.MigrationRequest,
        context: Call,  # noqa: ARG002
    ) -> coordinator_pb2.CommitMoveResponse:
        return coordinator_pb2.CommitMoveResponse(text=self._runner.commit(request.migration_id))

    def UndoMove(self, request: coordinator_pb2.MigrationRequest, context: Call) -> Iterator[coordinator_pb2.MoveEvent]:  # noqa: N802, ARG002
        migration_id = self._runner.undo(request.migration_id)
        for happened in self._runner.watch(migration_id):
            yield pack.event(migration_id, happened)

    def SetMigration(  # noqa: N802
        self,
        request: coordinator_pb2.SetMigrationRequest,
        context: Call,  # noqa: ARG002
    ) -> coordinator_pb2.SetMigrationResponse:
        return coordinator_pb2.SetMigrationResponse(
            text=self._runner.set_bandwidth(request.migration_id, request.bandwidth)
        )

    def Repair(self, request: coordinator_pb2.RepairRequest, context: Call) -> Iterator[coordinator_pb2.MoveEvent]:  # noqa: N802, ARG002
        migration_id = self._runner.known(request.migration_id, dry_run=request.dry_run)
        for happened in self._runner.repair(migration_id, dry_run=request.dry_run, keep=request.keep):
            yield pack.event(migration_id, happened)

    def Migrations(  # noqa: N802
        self,
        request: coordinator_pb2.MigrationsRequest,
        context: Call,  # noqa: ARG002
    ) -> coordinator_pb2.MigrationsResponse:
        records = self._runner.records(container=request.container, active=request.active, limit=request.limit)
        return coordinator_pb2.MigrationsResponse(migrations=[pack.record(one) for one in records])

    def Migration(self, request: coordinator_pb2.MigrationRequest, context: Call) -> coordinator_pb2.MigrationRecord:  # noqa: N802, ARG002
        return pack.record(self._runner.record(request.migration_id))

    def _with_target(self, order: MoveOrder, constraints: Iterable[str]) -> tuple[MoveOrder, types_pb2.Progress]:
        """The host that the same request has chosen before, or the best one now; and a line that says why."""
        known = self._store.migration_of_request(order.request_id) if order.request_id else None
        if known is not None:
            target, text = known.target, f"{known.target}, as before"
        else:
            ranking = choose.rank_for_move(self._store, self._pool, order.container, constraints)
            chosen = choose.best(ranking, order.container)
            able = sum(not one.refusals for one in ranking)
            target, text = chosen.host, f"{chosen.host}, {because(chosen, able - 1)}"
        line = types_pb2.Progress(phase="placement", text=text, unix_ns=time.time_ns())
        return dataclasses.replace(order, to=target), line

    def MigrationLogs(self, request: coordinator_pb2.MigrationRequest, context: Call) -> agent_pb2.MoveLogs:  # noqa: N802, ARG002
        return self._runner.logs(request.migration_id)

    def _checked(self, order: MoveOrder) -> Iterator[coordinator_pb2.MoveEvent]:
        """A dry run: the reasons against the move as an error, or a record that nothing was found."""
        report = self._runner.check(order)
        if report.blockers:
            raise refuse(report.container, report.target, report.blockers)
        container = self._store.container(order.container)
        now = time.time_ns()
        text = f"nothing speaks against moving {container.name} from {container.owner} to {order.to}"
        yield coordinator_pb2.MoveEvent(progress=types_pb2.Progress(phase="precheck", text=text, unix_ns=now))
        yield coordinator_pb2.MoveEvent(
            done=coordinator_pb2.MigrationRecord(
                container_id=container.id,
                container=container.name,
                source=container.owner,
                target=order.to,
                state=CHECKED,
                step="precheck",
                reason=order.reason,
                mode=order.mode or "auto",
                started_unix_ns=now,
                finished_unix_ns=now,
                epoch=container.epoch,
            )
        )


def _order(request: coordinator_pb2.MoveRequest) -> MoveOrder:
    return MoveOrder(
        container=request.container,
        to=request.to,
        reason=request.reason,
        mode=request.mode,
        max_downtime_s=request.max_downtime_s,
        request_id=request.request_id,
        transfer=TransferOptions(
            compress=request.transfer.compress or "auto",
            bandwidth=request.transfer.bandwidth,
            connections=request.transfer.connections or 1,
        ),
        precopy=PrecopyOptions(
            max_rounds=request.precopy.max_rounds,
            timeout_s=request.precopy.timeout_s,
            on_timeout=request.precopy.on_timeout or "abort",
            throttle=request.precopy.throttle,
            hold=request.precopy.hold,
            end_exec=request.precopy.end_exec,
        ),
        skip=tuple(request.skip),
        no_policy=request.no_policy,
    )
