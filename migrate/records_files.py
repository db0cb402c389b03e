"""Records about the files of containers, see migrate.records."""

from __future__ import annotations

from migrate.records_json import Json


class Copied(Json):
    """`bytes`: of the tar. `skipped`: names of devices that were left out, the first of `skipped_count`."""

    bytes: int
    files: int
    skipped: tuple[str, ...] = ()
    skipped_count: int = 0


class FileChange(Json):
    """`kind`: "A" added, "C" changed, "D" deleted."""

    kind: str
    path: str


class Rootfs(Json):
    """`path` on `host`."""

    host: str
    path: str
