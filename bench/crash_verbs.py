"""The verbs whose middle is looked at: what each needs, does, and must do when it is said again after a crash."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from migrate.client import Client
from migrate.errors import MigrateError
from migrate.records import Port, Run

IMAGE = "redis"  # has a busybox
STORAGE_BYTES = 32 << 20
GOES_S = 3.0
FEW_BYTES, MANY_BYTES = 64 << 20, 96 << 20
# Ends at once when told to, as a program that knows SIGTERM does, and says that it lives.
_PROGRAM = "trap 'exit 0' TERM; i=0; while :; do i=$((i+1)); echo $i > /count; sleep 0.02; done"


@dataclass(frozen=True, kw_only=True)
class Target:
    """The container that a cell is about."""

    fleet: Client
    name: str
    host: str
    port: int  # of the host, published

    def wanted(self, *, argv: tuple[str, ...] = (), remove: bool = False) -> Run:
        return Run(
            image=IMAGE,
            name=self.name,
            host=self.host,
            argv=argv or ("busybox", "sh", "-c", _PROGRAM),
            remove_on_exit=remove,
            storage_bytes=STORAGE_BYTES,
            memory_bytes=FEW_BYTES,
            ports=(Port(host_port=self.port, container_port=80),),
        )

    def state(self) -> str:
        """ "" where the fleet has no such container."""
        try:
            return self.fleet.inspect(self.name).state
        except MigrateError as exc:
            if exc.code.endswith("not_found"):
                return ""
            raise

    def gone(self) -> None:
        """Whatever it is, remove it by force, as a user would."""
        if self.state():
            self.fleet.remove(self.name, force=True)


@dataclass(frozen=True, kw_only=True)
class Verb:
    """`after`: the states in which it may be found after the crash ("" = none); `again`: raises where it does not end well."""

    name: str
    prepare: Callable[[Target], object]
    act: Callable[[Target], object]
    after: tuple[str, ...]
    again: Callable[[Target], object]


def _nothing(_: Target) -> None:
    return


def _create(target: Target) -> None:
    target.fleet.create(target.wanted())


def _start(target: Target) -> None:
    target.fleet.start(target.name)


def _run(target: Target) -> None:
    target.fleet.run(target.wanted())


def _paused(target: Target) -> None:
    _run(target)
    target.fleet.pause(target.name)


def _exec(target: Target) -> None:
    session = target.fleet.exec(target.name, ("busybox", "sh", "-c", "echo one; sleep 0.1; echo two"))
    said = b"".join(output.data for output in session)
    if said != b"one\ntwo\n" or session.exit_code != 0:
        raise MigrateError(f"exec said {said!r} and ended with {session.exit_code}", hint="-")


def _run_rm(target: Target) -> None:
    target.fleet.run(target.wanted(argv=("busybox", "sleep", "0.1"), remove=True))
    try:
        target.fleet.wait(target.name, timeout_s=10)
    except MigrateError as exc:
        if not exc.code.endswith("not_found"):
            raise


def _create_again(target: Target) -> None:
    """What a user does who was told that it failed: rm, where it is there, and again; and it must be whole."""
    if target.state():
        target.fleet.remove(target.name)
    _create(target)
    target.fleet.start(target.name)


def _start_again(target: Target) -> None:
    if target.state() != "running":
        _start(target)
    _exec(target)


def _stop(target: Target) -> None:
    target.fleet.stop(target.name)


def _stop_again(target: Target) -> None:
    _stop(target)
    if (state := target.state()) != "exited":
        raise MigrateError(f"it is {state} after stop")
    _start_again(target)


def _remove(target: Target) -> None:
    target.fleet.remove(target.name)


def _remove_again(target: Target) -> None:
    if target.state():
        _remove(target)
    _create(target)  # its name, address and ids are free


def _remove_running(target: Target) -> None:
    target.fleet.remove(target.name, force=True)


def _remove_running_again(target: Target) -> None:
    if target.state():
        _remove_running(target)
    _create(target)


def _pause(target: Target) -> None:
    target.fleet.pause(target.name)


def _pause_again(target: Target) -> None:
    _pause(target)
    target.fleet.unpause(target.name)
    _exec(target)


def _unpause(target: Target) -> None:
    target.fleet.unpause(target.name)


def _unpause_again(target: Target) -> None:
    if target.state() == "paused":
        _unpause(target)
    _exec(target)


def _update(target: Target) -> None:
    target.fleet.update(target.name, memory_bytes=MANY_BYTES)


def _update_again(target: Target) -> None:
    _update(target)
    _exec(target)


def _run_rm_again(target: Target) -> None:
    target.gone()
    _run_rm(target)
    deadline = time.monotonic() + GOES_S  # `wait` ends a little before it is removed
    while state := target.state():
        if time.monotonic() > deadline:
            raise MigrateError(f"run --rm: it is {state} after its end")


VERBS = {
    verb.name: verb
    for verb in (
        Verb(name="create", prepare=_nothing, act=_create, after=("", "created", "unknown"), again=_create_again),
        Verb(name="start", prepare=_create, act=_start, after=("created", "running", "exited"), again=_start_again),
        Verb(name="exec", prepare=_run, act=_exec, after=("running",), again=_start_again),
        Verb(name="stop", prepare=_run, act=_stop, after=("running", "exited"), again=_stop_again),
        Verb(name="rm", prepare=_create, act=_remove, after=("", "created", "unknown"), again=_remove_again),
        Verb(
            name="rm -f",
            prepare=_run,
            act=_remove_running,
            after=("", "running", "exited", "unknown"),
            again=_remove_running_again,
        ),
        Verb(name="pause", prepare=_run, act=_pause, after=("running", "paused"), again=_pause_again),
        Verb(name="unpause", prepare=_paused, act=_unpause, after=("running", "paused"), again=_unpause_again),
        Verb(name="update", prepare=_run, act=_update, after=("running",), again=_update_again),
        Verb(
            name="run --rm",
            prepare=_nothing,
            act=_run_rm,
            after=("", "created", "running", "exited", "unknown"),
            again=_run_rm_again,
        ),
    )
}
