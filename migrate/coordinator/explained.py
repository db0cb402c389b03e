"""Every error of a failed move, with its cause and what to do about it."""

from __future__ import annotations

import dataclasses

from agent.diagnosis.diagnose import diagnose
from migrate.errors import ErrorRecord


def explained(error: ErrorRecord) -> ErrorRecord:
    """The cause goes into the message, the remedy is the hint where whoever failed had none. What nobody knows stays as it is.

    CRIU's errors come explained from their agent: theirs is the whole log.
    """
    found = diagnose(error.message)
    if not found.known:
        found = diagnose(error.detail)
    if not found.known or found.remedy == error.hint:
        return error
    message = error.message if found.cause in error.message else f"{error.message} ({found.cause})"
    return dataclasses.replace(error, message=message, hint=error.hint or found.remedy)
