"""Volumes as the client library gives them. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from migrate.records_json import Json


class Volume(Json):
    """A volume on one host. `shared`: the directory that is its files on every host, "" = they are on this host alone and move with
    the container that uses them; `path`: where they are there; `used_by`: names of containers; `migration_id`: of the move that it
    comes with.
    """

    name: str
    host: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    created_unix_ns: int = 0
    anonymous: bool = False
    shared: str = ""
    path: str = ""
    used_by: tuple[str, ...] = ()
    migration_id: str = ""
