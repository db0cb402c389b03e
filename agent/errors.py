"""The agent's errors. Each has a stable code, a fact with the values, and a hint: what to type or change next.

`touched` says whether anything changed: "nothing", "undone" (it did and was put back) or "something".
Standard library only: monitor and init use this module too.
"""


class AgentError(Exception):
    """Base of everything that the agent reports to a caller."""

    code = "agent.internal"
    touched = "nothing"

    def __init__(self, message: str, *, hint: str = "", detail: str = "", code: str = "", touched: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail
        if code:
            self.code = code
        if touched:
            self.touched = touched


class NotFound(AgentError):
    """No such container, image, layer or migration on this host."""

    code = "not_found"


class AlreadyExists(AgentError):
    """The name or id is taken."""

    code = "already_exists"


class InvalidArgument(AgentError):
    """The request makes no sense as it is."""

    code = "invalid_argument"


class WrongState(AgentError):
    """The thing exists but its state does not allow this."""

    code = "wrong_state"


class Unsupported(AgentError):
    """This host lacks a capability; the hint names the remedy."""

    code = "unsupported"


class StartError(AgentError):
    """A container's process could not be started; the message names the step and the errno."""

    code = "container.start_failed"
    touched = "undone"


class StorageError(AgentError):
    """Bytes on disk are missing, corrupt, or there is no room for more."""

    code = "storage"


class CriuError(AgentError):
    """CRIU refused or died; `detail` holds the first error of its log and the lines around it."""

    code = "criu"
    touched = "undone"


class TransferError(AgentError):
    """The stream between the hosts broke, or what arrived is not what was sent."""

    code = "transfer"
    touched = "undone"


class StaleEpoch(AgentError):
    """A call from before a pivot that this host already knows of: refused, whatever it asks."""

    code = "migration.stale_epoch"
