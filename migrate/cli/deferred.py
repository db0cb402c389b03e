"""Modules that gRPC and protobuf import and a command line hardly ever uses: loaded when somebody does, not before.

A third of the time of `migrate ps` went into them: asyncio with ssl, for a server that is none, and the message classes that protobuf
has for where its C library is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

# Each is imported by one module only: a second import of one loads it.
MODULES = frozenset({"asyncio", "grpc.aio", "google.protobuf.internal.python_message", "calendar", "ipaddress"})


class Deferred:
    """Finds MODULES; what is found loads at the first look into it."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,  # noqa: ARG002  # the import system's signature
    ) -> ModuleSpec | None:
        if fullname not in MODULES:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def install() -> None:
    """For this process."""
    if not any(isinstance(finder, Deferred) for finder in sys.meta_path):
        sys.meta_path.insert(0, Deferred())
