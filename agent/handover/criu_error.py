"""Why CRIU failed, as an error for people: from its log, or from what the monitor said."""

from __future__ import annotations

import re
from pathlib import Path

from agent.diagnosis.diagnose import Diagnosis, diagnose
from agent.errors import AgentError, CriuError

# "restore: setup-namespaces: ...": the monitor names the notification that it answered with a refusal. And what CRIU's helpers say
# of a CRIU that was killed is not why.
_OUR_REFUSAL = re.compile(
    r"(dump|restore): (pre-dump|network-lock|post-dump|setup-namespaces|post-restore|pre-resume|CRIU died)"
)


def criu_error(verb: str, path: Path, exc: AgentError) -> CriuError:
    """What CRIU's log says, else what the monitor heard; where the monitor itself refused CRIU, its reason."""
    found = _of_log(path)  # complete: the monitor answers when CRIU has ended
    if not found.error or _OUR_REFUSAL.match(exc.message):
        heard = diagnose(exc.message)
        return CriuError(
            f"{verb} failed: {_with_cause(exc.message, heard)}",
            hint=exc.hint or heard.remedy,
            detail=found.context if found.error else "",
        )
    return CriuError(f"{verb} failed: {_with_cause(found.error, found)}", hint=found.remedy, detail=found.context)


def _of_log(path: Path) -> Diagnosis:
    try:
        return diagnose(path.read_text(errors="replace"))
    except OSError:
        return Diagnosis()


def _with_cause(error: str, found: Diagnosis) -> str:
    return f"{error} ({found.cause})" if found.cause else error
