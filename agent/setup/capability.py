"""What one probe found out. The same fields as the message `Capability` in protos/agent.proto."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Verdict(enum.StrEnum):
    """How much it matters."""

    OK = "ok"
    WARN = "warn"  # something is slower or one feature is lost
    MISSING = "MISSING"  # containers or moves do not work without it


@dataclass(frozen=True, kw_only=True)
class Capability:
    """One thing that this host can or cannot do. `remedy` is "" where there is nothing to do."""

    name: str
    ok: bool
    value: str
    remedy: str = ""
    required: bool = False

    @property
    def verdict(self) -> Verdict:
        if self.ok:
            return Verdict.OK
        return Verdict.MISSING if self.required else Verdict.WARN
