"""The errors of the fleet's side. Each has a stable code, a fact with the values, and a hint: what to type next.

Two branches matter to whoever typed the command: `PrecheckError` (nothing was touched) and `StepError` (something
was; `touched` says whether it was put back). Standard library only: the saga, the coordinator and the command line
all use this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self


class MigrateError(Exception):
    """Base of everything that is reported to a caller.

    `touched` is "nothing", "undone" (it was changed and put back) or "something".
    `exit_status` is what the command line ends with: 1 general, 2 usage, 3 not found, 4 unreachable, 5 refused by a
    check, 6 failed and undone, 7 needs attention, 130 cancelled.
    `code` and `touched` given to the constructor replace those of the class: an agent's own code ("storage", "criu")
    must survive the trip through the coordinator.
    """

    code: str = "internal"
    touched: str = "nothing"
    default_exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", detail: str = "", code: str = "", touched: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail
        self.facts: Mapping[str, Any] = {}  # what a step found out before it failed: kept in its journal
        if code:
            self.code = code
        if touched:
            self.touched = touched

    @property
    def exit_status(self) -> int:
        return self.default_exit_status


class NotFound(MigrateError):
    """No such host, container, image or migration."""

    code = "not_found"
    default_exit_status = 3


class AlreadyExists(MigrateError):
    """The name, address or id is taken."""

    code = "already_exists"


class InvalidArgument(MigrateError):
    """The request makes no sense as it is."""

    code = "invalid_argument"
    default_exit_status = 2


class WrongState(MigrateError):
    """The thing exists but its state does not allow this."""

    code = "wrong_state"


class PrecheckError(MigrateError):
    """A check before a move said no. Nothing was touched."""

    code = "migration.precheck"
    default_exit_status = 5


class StepError(MigrateError):
    """A step of a move failed. `touched` is "undone" when the container runs on its source as before."""

    code = "migration.step_failed"
    touched = "something"

    @property
    def exit_status(self) -> int:
        return 6 if self.touched != "something" else NeedsAttention.default_exit_status


class Unreachable(MigrateError):
    """A host, or the coordinator itself, does not answer. What was asked may or may not have happened there."""

    code = "unreachable"
    default_exit_status = 4


class Cancelled(MigrateError):
    """Somebody asked for it before the pivot; the move was undone."""

    code = "cancelled"
    touched = "undone"
    default_exit_status = 130


class NeedsAttention(MigrateError):
    """The coordinator will not go on by itself: the hint is the command to type."""

    code = "migration.needs_attention"
    touched = "something"
    default_exit_status = 7


class Internal(MigrateError):
    """A mistake in the program."""

    code = "internal"


@dataclass(frozen=True, kw_only=True)
class ErrorRecord:
    """An error as it is journalled and sent: the fields of ErrorDetail in protos/types.proto."""

    code: str
    message: str
    hint: str = ""
    touched: str = "nothing"
    detail: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Of any exception: one that is not ours is a mistake in the program and keeps its class's name."""
        if isinstance(error, MigrateError):
            return cls(
                code=error.code, message=error.message, hint=error.hint, touched=error.touched, detail=error.detail
            )
        return cls(code=Internal.code, message=f"{type(error).__name__}: {error}", touched="something")

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        """Raises TypeError when the fields are not those of an error."""
        return cls(**raw)

    def to_json(self) -> dict[str, str]:
        return asdict(self)
