"""The arrows and the rules of docs/architecture.md, enforced."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
MAX_LINES = 600
BANNED_NAMES = {"utils", "common", "helpers", "manager"}

# Package or module -> what it may import besides itself and the standard library. The longest entry that fits counts.
MAY_IMPORT: dict[str, set[str]] = {
    "protos": {"grpc", "google"},
    "agent": {"agent", "migrate.rpc", "protos", "grpc", "google"},  # __main__.py, server.py
    "agent.atomic": set(),
    "agent.config": {"agent.errors", "agent.memory.ways"},
    "agent.dial": set(),
    "agent.door": {"agent.relay", "agent.errors", "agent.linux"},
    "agent.errors": set(),
    "agent.relay": set(),
    "agent.diagnosis": set(),  # pure: the command line and the coordinator ask it too
    "agent.linux": set(),
    "agent.filetree": {"agent.linux"},  # both ends of `cp`
    # The monitor's program: the engine's monitor knows nothing of CRIU, which is added to it here.
    "agent.monitor": {"agent.linux", "agent.errors", "agent.engine", "agent.criu"},
    "agent.scan": {"agent.linux", "agent.errors", "agent.engine.spec"},
    "agent.setup": {"agent.atomic", "agent.linux", "agent.errors", "agent.config", "agent.dial"},
    "agent.engine": {"agent.atomic", "agent.config", "agent.linux", "agent.errors", "agent.filetree"},
    "agent.criu": {"agent.linux", "agent.errors", "agent.engine", "pycriu"},
    "agent.storage": {"agent.atomic", "agent.linux", "agent.errors", "agent.engine.spec", "zstandard", "xxhash"},
    "agent.memory": {"agent.linux", "agent.errors", "agent.engine.spec", "numpy", "xxhash"},
    # A process of its own that reads the memory of every task of the container: the cgroup says which they are.
    "agent.transfer": {
        "agent.atomic", "agent.diagnosis", "agent.engine.cgroup", "agent.engine.throttle",
        "agent.linux", "agent.errors", "agent.engine.spec", "agent.relay", "agent.storage", "agent.memory", "agent.criu",
        "lz4", "numpy", "xxhash", "zstandard",
    },
    "agent.handover": {
        "agent.atomic", "agent.diagnosis", "agent.linux", "agent.errors", "agent.config", "agent.setup", "agent.door", "agent.relay",
        "agent.engine", "agent.storage", "agent.criu", "agent.transfer", "agent.memory", "agent.scan",
    },
    "agent.build": {
        "agent.atomic", "agent.linux", "agent.errors", "agent.config", "agent.engine", "agent.storage", "e2b_dockerfile_utils",
    },
    "agent.services": {"agent", "migrate.rpc", "protos", "grpc", "google"},
    "migrate": {"migrate.errors", "migrate.client", "migrate.records", "migrate.cli"},  # __init__.py, __main__.py
    "migrate.errors": set(),
    "migrate.records": {"migrate.records_container", "migrate.records_fleet", "migrate.records_json", "migrate.records_volumes"},
    "migrate.records_fleet": {"migrate.records_container", "migrate.records_json"},
    "migrate.records_container": {"migrate.records_json"},
    "migrate.records_check": {"migrate.records_json"},
    "migrate.records_files": {"migrate.records_json"},
    "migrate.records_policies": {"migrate.records_json"},
    "migrate.records_rebalance": {"migrate.records_json"},
    "migrate.records_schedules": {"migrate.records", "migrate.records_json"},
    "migrate.records_volumes": {"migrate.records_json"},
    "migrate.records_json": set(),
    "migrate.timeline": {"migrate.records"},
    "migrate.wire": {"migrate.errors", "migrate.records", "migrate.rpc", "protos", "google"},
    "migrate.context": {"migrate.errors", "e2b_dockerfile_utils"},
    "migrate.client": {
        "migrate.client_builds", "migrate.client_evacuations",
        "migrate.client_files", "migrate.client_hosts", "migrate.client_images", "migrate.client_lifecycle",
        "migrate.client_policies", "migrate.client_rebalance", "migrate.client_schedules",
        "migrate.client_volumes", "migrate.errors",
        "migrate.records", "migrate.records_check", "migrate.records_schedules",
        "migrate.wire", "migrate.rpc", "protos", "grpc",
    },
    "migrate.client_builds": {"migrate.errors", "migrate.records", "migrate.wire", "protos", "grpc"},
    "migrate.client_images": {"migrate.errors", "migrate.records", "migrate.wire", "protos"},
    "migrate.client_evacuations": {"migrate.records", "migrate.rpc", "protos"},
    "migrate.client_hosts": {"migrate.records", "migrate.rpc", "migrate.wire", "protos"},
    "migrate.client_lifecycle": {"migrate.records", "migrate.wire", "protos"},
    "migrate.client_policies": {"migrate.records_policies", "migrate.rpc", "protos", "grpc"},
    "migrate.client_rebalance": {"migrate.records_rebalance", "migrate.rpc", "protos", "grpc"},
    "migrate.client_schedules": {"migrate.records_schedules", "migrate.rpc", "protos", "grpc"},
    "migrate.client_volumes": {"migrate.records", "migrate.rpc", "protos"},
    "migrate.client_copy": {"migrate.errors", "migrate.records_files", "protos", "agent.filetree"},
    "migrate.client_files": {
        "migrate.client_copy", "migrate.errors", "migrate.records", "migrate.records_files", "migrate.wire", "protos",
    },
    "migrate.placement": {"migrate.errors"},
    "migrate.rpc": {"migrate.errors", "protos", "grpc", "google"},
    "migrate.saga": {"migrate.errors"},
    "migrate.tunnel": {"migrate.errors", "migrate.rpc", "grpc", "paramiko", "cryptography"},
    "migrate.coordinator": {
        "migrate.errors", "migrate.placement", "migrate.saga", "migrate.tunnel", "migrate.rpc", "protos", "grpc", "google",
        "agent.diagnosis",
    },
    "migrate.debian": {"migrate.errors", "zstandard"},
    "migrate.join": {"migrate.errors", "migrate.records", "migrate.tunnel", "migrate", "agent.setup"},
    "migrate.lab": {
        "migrate.errors", "migrate.records", "migrate.client", "migrate.debian", "migrate.tunnel.pki", "agent.setup",
    },
    "migrate.cli": {
        "migrate.errors", "migrate.records", "migrate.records_check", "migrate.records_files", "migrate.records_policies",
        "migrate.records_rebalance", "migrate.records_schedules", "migrate.client", "migrate.context",
        "migrate.debian", "migrate.join", "migrate.lab", "migrate.timeline", "migrate.tunnel", "agent.setup", "agent.diagnosis",
    },
}  # fmt: skip
JUDGED = {
    "agent", "migrate", "protos", "grpc", "google", "pycriu", "paramiko", "cryptography", "numpy", "xxhash", "zstandard",
    "e2b_dockerfile_utils",
}  # fmt: skip

# Started as `python -I -S FILE`, by sshd, or before anything is installed: nothing but the standard library and ours.
BARE = (
    "agent/monitor.py",
    "agent/engine/monitor.py",
    "agent/engine/init.py",
    "agent/engine/link.py",  # by the monitor; the agent calls what enters nothing: cut and join
    "agent/engine/enter.py",
    "agent/engine/reach.py",
    "agent/dial.py",
    "agent/scan/unix_diag.py",
    "agent/setup/__main__.py",
    "agent/setup/doctor.py",
    "agent/setup/probe_child.py",
)

# Run in a process of one thread, never in the agent: they may fork and change namespaces.
SINGLE_THREADED = {
    "agent/criu/mount_flags.py",  # put_back by the monitor; the agent reads with the rest of it
    "agent/linux/namespaces.py",
    "agent/engine/enter.py",
    "agent/engine/init.py",
    "agent/engine/link.py",  # by the monitor; the agent calls what enters nothing: cut and join
    "agent/engine/monitor_start.py",
    "agent/engine/reach.py",
    "agent/engine/rootfs.py",  # by the monitor
    "agent/engine/sysctls.py",  # by the monitor
    "agent/engine/throwaway.py",  # by the monitor
    "agent/engine/zygote.py",
    "agent/scan/unix_diag.py",
    "agent/setup/probe_child.py",
}
FORBIDDEN_CALLS = {"fork", "fork_into", "forkpty", "unshare", "setns", "network_of", "mounts_of", "mounts_of_its_own"}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def sources(*folders: str) -> list[Path]:
    """Python files that people wrote, relative to the checkout."""
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path.relative_to(ROOT) for path in found if "_pb2" not in path.name)


def module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path, *, types: bool = True) -> Iterator[str]:
    """Dotted names that the file imports, in functions too; with `types` also those under `if TYPE_CHECKING`."""
    pending: list[ast.AST] = [tree_of(ROOT / path)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the whole name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not types:
            pending.extend(node.orelse)
        else:
            pending.extend(ast.iter_child_nodes(node))


def allowed_for(module: str) -> set[str]:
    fitting = [name for name in MAY_IMPORT if f"{module}.".startswith(f"{name}.")]
    best = max(fitting, key=len)
    return {best, *MAY_IMPORT[best]}


@pytest.mark.parametrize("path", sources("agent", "migrate", "protos"), ids=str)
def test_file_imports_only_what_its_package_may(path: Path) -> None:
    """No import goes against the arrows."""
    allowed = allowed_for(module_name(path))
    for name in imports(path):
        if name.split(".")[0] in JUDGED and name not in ("agent", "migrate"):  # a bare package: its version or its path
            assert any(f"{name}.".startswith(f"{one}.") for one in allowed), f"{path} may not import {name}"


def file_of(name: str) -> Path | None:
    """The file of ours that the dotted name means, whether a module or something in one."""
    for dotted in (name, name.rpartition(".")[0]):
        base = Path(*dotted.split(".")) if dotted else None
        for candidate in (base.with_suffix(".py"), base / "__init__.py") if base else ():
            if (ROOT / candidate).is_file():
                return candidate
    return None


def everything_imported_by(start: Path) -> dict[Path, set[str]]:
    """File of ours -> names that it imports, for `start` and what it reaches; packages run their __init__ too."""
    found: dict[Path, set[str]] = {}
    pending = [start]
    while pending:
        path = pending.pop()
        if path in found:
            continue
        found[path] = set(imports(path, types=False))
        inits = [parent / "__init__.py" for parent in path.parents if (ROOT / parent / "__init__.py").is_file()]
        pending += inits
        pending += [file for name in found[path] if (file := file_of(name)) is not None]
    return found


@pytest.mark.parametrize("entry", BARE)
def test_bare_process_needs_only_the_standard_library(entry: str) -> None:
    """What runs without site-packages imports, directly or not, only the standard library and `agent`."""
    for path, names in everything_imported_by(Path(entry)).items():
        for name in names:
            top = name.split(".")[0]
            assert top == "agent" or top in sys.stdlib_module_names, f"{entry} reaches {path}, which imports {name}"


def test_the_agent_neither_forks_nor_changes_namespaces() -> None:
    """Only files that run in single-threaded processes of their own fork, unshare or setns."""
    for path in sources("agent"):
        if str(path) in SINGLE_THREADED:
            continue
        assert "multiprocessing" not in {name.split(".")[0] for name in imports(path)}, f"{path}: multiprocessing forks"
        for node in ast.walk(tree_of(ROOT / path)):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func).rsplit(".", 1)[-1]
                assert called not in FORBIDDEN_CALLS, f"{path}:{node.lineno}: {called}() in a process with threads"
                keywords = {keyword.arg for keyword in node.keywords}
                assert "preexec_fn" not in keywords, f"{path}:{node.lineno}: preexec_fn forks in a process with threads"


def test_listed_files_exist() -> None:
    """The lists of this test name files that are there, so a rename cannot switch a rule off."""
    for name in (*BARE, *SINGLE_THREADED):
        assert (ROOT / name).is_file(), name


def test_files_are_short() -> None:
    """No file that people wrote is longer than 600 lines."""
    for path in sources("agent", "migrate", "tests", "bench"):
        lines = len((ROOT / path).read_text().splitlines())
        assert lines <= MAX_LINES, f"{path} has {lines} lines: which two things live in it?"


def test_names_say_what_is_inside() -> None:
    """No module is called utils, common, helpers or manager."""
    for path in sources("agent", "migrate", "tests", "bench"):
        assert not BANNED_NAMES & set(path.with_suffix("").parts), f"{path}: name it after what it holds"
