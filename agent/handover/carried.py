"""Which trees of files go along with a container, in the order that both hosts know them by: its writable layer, its volumes, and what
lies in memory (tmpfs mounts of its own).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.engine import mounted
from agent.engine.container import Engine
from agent.engine.spec import ContainerSpec


def roots(engine: Engine, spec: ContainerSpec) -> list[Path]:
    """Of those that lie on this host's disks. Volumes that are shared stay where they are."""
    volumes = [each for each in engine.volumes.of(spec) if not each.shared]
    layer = engine.store.directory(spec.id) / "layer" / "upper"
    return [layer, *(engine.volumes.path(each) for each in volumes)]


def trees(engine: Engine, container_id: str) -> list[Any]:
    """All of them, as the sender takes them (JSON): a path, or {"pid": the init's, "target": a mount point in the container}."""
    spec, pid = engine.store.spec(container_id), engine.inspect(container_id).pid
    memory = [{"pid": pid, "target": mounted.clean(each.target)} for each in mounted.tmpfs(spec)]
    return [*(str(root) for root in roots(engine, spec)), *memory]
