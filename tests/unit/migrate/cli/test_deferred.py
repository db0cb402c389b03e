"""What the command line does not load before it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from migrate.cli import deferred

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[4]


def loaded(code: str) -> set[str]:
    """Names of the modules that have been run, not only named, after `code` in a Python of its own."""
    tail = (
        "\nimport sys, types\n"
        "print(*(name for name, module in list(sys.modules.items()) if type(module) is types.ModuleType), sep='\\n')"
    )
    program = [sys.executable, "-c", code + tail]
    return set(subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())


def test_help_needs_no_grpc() -> None:
    """Neither gRPC nor protobuf nor the client library."""
    names = loaded("from migrate.cli.main import main\nmain(['--help'])")
    assert "migrate.cli.main" in names
    assert not [name for name in names if name.split(".")[0] in ("grpc", "google", "protos", "asyncio")]
    assert "migrate.client" not in names


def test_client_does_without_asyncio() -> None:
    """gRPC and protobuf work, and what they import for others is not run."""
    names = loaded("from migrate.cli import deferred\ndeferred.install()\nimport migrate.client")
    assert {"grpc", "protos.coordinator_pb2"} <= names
    assert not names & deferred.MODULES


def test_deferred_module_loads_when_it_is_used() -> None:
    """It is the real one then."""
    names = loaded(
        "from migrate.cli import deferred\ndeferred.install()\nimport asyncio\nassert asyncio.run\nassert asyncio.Queue"
    )
    assert "asyncio.events" in names


def test_ps_makes_only_the_records_of_containers() -> None:
    """The others cost 30 ms, and are there as soon as somebody asks for one."""
    names = loaded("from migrate.cli import deferred\ndeferred.install()\nimport migrate.client, migrate.cli.ps")
    assert "migrate.records_container" in names
    assert "migrate.records_fleet" not in names
    assert "migrate.records_fleet" in loaded("from migrate.records import Image\nassert Image.__name__ == 'Image'")
