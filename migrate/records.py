"""What the client library hands out and takes: frozen dataclasses, standard library only.

States of a container: "created", "running", "frozen", "exited", "arriving", "lost"; "unknown" where its host cannot be
asked. States of a move: "running", "succeeded", "failed", "cancelled", "waiting" (past the pivot, retrying),
"needs-attention", and "checked" after a dry run.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from migrate.records_container import (
        Container as Container,
    )
    from migrate.records_container import (
        Device as Device,
    )
    from migrate.records_container import (
        DeviceRate as DeviceRate,
    )
    from migrate.records_container import (
        Health as Health,
    )
    from migrate.records_container import (
        Healthcheck as Healthcheck,
    )
    from migrate.records_container import (
        HealthResult as HealthResult,
    )
    from migrate.records_container import (
        Isolation as Isolation,
    )
    from migrate.records_container import (
        Limits as Limits,
    )
    from migrate.records_container import (
        Mount as Mount,
    )
    from migrate.records_container import (
        Place as Place,
    )
    from migrate.records_container import (
        Port as Port,
    )
    from migrate.records_container import (
        RestartPolicy as RestartPolicy,
    )
    from migrate.records_container import (
        Run as Run,
    )
    from migrate.records_container import (
        Secret as Secret,
    )
    from migrate.records_container import (
        Ulimit as Ulimit,
    )
    from migrate.records_fleet import (
        Build as Build,
    )
    from migrate.records_fleet import (
        BuildStep as BuildStep,
    )
    from migrate.records_fleet import (
        BuildStepDone as BuildStepDone,
    )
    from migrate.records_fleet import (
        BuildWarning as BuildWarning,
    )
    from migrate.records_fleet import (
        Capability as Capability,
    )
    from migrate.records_fleet import (
        Evacuation as Evacuation,
    )
    from migrate.records_fleet import (
        EvacuationItem as EvacuationItem,
    )
    from migrate.records_fleet import (
        EvacuationNote as EvacuationNote,
    )
    from migrate.records_fleet import (
        Event as Event,
    )
    from migrate.records_fleet import (
        Facts as Facts,
    )
    from migrate.records_fleet import (
        Failure as Failure,
    )
    from migrate.records_fleet import (
        Happening as Happening,
    )
    from migrate.records_fleet import (
        Host as Host,
    )
    from migrate.records_fleet import (
        Image as Image,
    )
    from migrate.records_fleet import (
        ImageDefaults as ImageDefaults,
    )
    from migrate.records_fleet import (
        ImageEvent as ImageEvent,
    )
    from migrate.records_fleet import (
        ImageProgress as ImageProgress,
    )
    from migrate.records_fleet import (
        Joined as Joined,
    )
    from migrate.records_fleet import (
        Left as Left,
    )
    from migrate.records_fleet import (
        LogLine as LogLine,
    )
    from migrate.records_fleet import (
        Mark as Mark,
    )
    from migrate.records_fleet import (
        Migration as Migration,
    )
    from migrate.records_fleet import (
        MoveLog as MoveLog,
    )
    from migrate.records_fleet import (
        Output as Output,
    )
    from migrate.records_fleet import (
        PrecopyOptions as PrecopyOptions,
    )
    from migrate.records_fleet import (
        Process as Process,
    )
    from migrate.records_fleet import (
        Progress as Progress,
    )
    from migrate.records_fleet import (
        Pulse as Pulse,
    )
    from migrate.records_fleet import (
        Pushed as Pushed,
    )
    from migrate.records_fleet import (
        RankedHost as RankedHost,
    )
    from migrate.records_fleet import (
        Ranking as Ranking,
    )
    from migrate.records_fleet import (
        RegistryAccess as RegistryAccess,
    )
    from migrate.records_fleet import (
        RemovedImages as RemovedImages,
    )
    from migrate.records_fleet import (
        Step as Step,
    )
    from migrate.records_fleet import (
        TunnelTest as TunnelTest,
    )
    from migrate.records_fleet import (
        Usage as Usage,
    )
    from migrate.records_fleet import (
        Version as Version,
    )
    from migrate.records_fleet import (
        split_name as split_name,
    )
    from migrate.records_json import Json as Json
    from migrate.records_volumes import (
        Volume as Volume,
    )

# Each file is loaded when something of it is asked for: a dataclass takes half a millisecond to make, and a command needs few of them.
_FILES = {
    "migrate.records_container": "Container Device DeviceRate Health HealthResult Healthcheck Isolation Limits Mount Place Port"
    " RestartPolicy Run Secret Ulimit",
    "migrate.records_json": "Json",
    "migrate.records_volumes": "Volume",
}


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    file = next((file for file, names in _FILES.items() if name in names.split()), "migrate.records_fleet")
    value = globals()[name] = getattr(importlib.import_module(file), name)
    return value
