"""Why CRIU failed, as an error for people: from its log, or from what the monitor said."""

from __future__ import annotations

import re
from pathlib import Path

from agent.criu import log
from agent.errors import AgentError, CriuError

# "restore: setup-namespaces: ...": the monitor names the notification that it answered with a refusal. And what CRIU's helpers say
# of a CRIU that was killed is not why.
_OUR_REFUSAL = re.compile(
    r"(dump|restore): (pre-dump|network-lock|post-dump|setup-namespaces|post-restore|pre-resume|CRIU died)"
)


def criu_error(verb: str, path: Path, exc: AgentError) -> CriuError:
    """What CRIU's log says, else what the monitor heard; where the monitor itself refused CRIU, its reason."""
    finding = log.first_error(path)  # complete: the monitor answers when CRIU has ended
    if finding is None or _OUR_REFUSAL.match(exc.message):
        return CriuError(f"{verb} failed: {exc.message}", detail=finding.context if finding else "")
    meaning = f" ({finding.meaning})" if finding.meaning else ""
    return CriuError(f"{verb} failed: {finding.error}{meaning}", hint=finding.remedy, detail=finding.context)
