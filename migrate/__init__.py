"""Move running containers between Linux hosts: coordinator, command line and client library.

    from migrate import Client, Run

Importing this package imports nothing else; `migrate.Client` brings gRPC in when it is first used.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "AlreadyExists",
    "Cancelled",
    "Client",
    "InvalidArgument",
    "MigrateError",
    "NeedsAttention",
    "NotFound",
    "PrecheckError",
    "Run",
    "StepError",
    "Unreachable",
    "WrongState",
]

if TYPE_CHECKING:
    from migrate.client import Client
    from migrate.errors import (
        AlreadyExists,
        Cancelled,
        InvalidArgument,
        MigrateError,
        NeedsAttention,
        NotFound,
        PrecheckError,
        StepError,
        Unreachable,
        WrongState,
    )
    from migrate.records import Run


def __getattr__(name: str) -> Any:
    import importlib

    if name not in __all__:
        raise AttributeError(f"module 'migrate' has no attribute {name!r}")
    module = {"Client": "client", "Run": "records"}.get(name, "errors")
    return getattr(importlib.import_module(f"migrate.{module}"), name)
