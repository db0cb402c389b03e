"""What a container has on this host alone, besides its spec: for containers that never move and do not outlive their agent,
those of builds. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Bind:
    """A file or directory of this host at `target`, an absolute path that is made where it is not there.

    `idmapped`: ids on disk are the container's own (0 = its root); else they are the host's.
    """

    source: Path
    target: str
    read_only: bool = False
    idmapped: bool = True


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """A tmpfs at `target`. `size_bytes` 0 = the kernel's default."""

    target: str
    size_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Local:
    """`host_network`: no network namespace of its own, and an empty /sys, which a user namespace cannot mount then."""

    binds: tuple[Bind, ...] = ()
    scratch: tuple[Scratch, ...] = ()
    host_network: bool = False

    def plan(self) -> dict[str, Any]:
        """The part of init.Plan that says so; empty for a container like any other."""
        found: dict[str, Any] = {}
        if self.binds:
            found["binds"] = [
                {
                    "source": str(bind.source),
                    "target": bind.target,
                    "read_only": bind.read_only,
                    "idmapped": bind.idmapped,
                }
                for bind in self.binds
            ]
        if self.scratch:
            found["scratch"] = [{"target": one.target, "size_bytes": one.size_bytes} for one in self.scratch]
        if self.host_network:
            found["host_network"] = True
        return found


NOTHING = Local()
