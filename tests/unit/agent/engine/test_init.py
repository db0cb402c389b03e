import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent.engine import init, sync
from agent.linux import namespaces
from tests.system.small_container import own_cgroup

pytestmark = pytest.mark.unit


def test_external_mounts_are_distinct_and_come_from_dev() -> None:
    """Every mount from the host has its own key, and a source that every host has."""
    listed = init.external_mounts()
    assert len({point for point, _, _ in listed}) == len({key for _, key, _ in listed}) == len(listed)
    assert all(source.startswith("/dev/") and Path(source).is_char_device() for _, _, source in listed)
    assert ("/dev/null", "dev-null", "/dev/null") in listed
    assert all(not set(key) & set("[]:/") for _, key, _ in listed)  # CRIU's own separators


@pytest.mark.parametrize("plan", [{}, {"hostname": 5}, {"hostname": "x", "shm_bytes": "many"}])
def test_a_plan_that_is_none_is_reported_and_nothing_starts(plan: dict[str, object], tmp_path: Path) -> None:
    """A broken plan ends init with a message, never in the monitor's code."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    root = os.open(tmp_path, os.O_PATH)
    pid = os.fork()
    if pid == 0:
        ours.close()
        init.run_stage(theirs, namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNET)
    theirs.close()
    with ours:
        message, _ = sync.receive(ours)
        assert message == {"type": "waiting"}
        namespaces.write_id_maps(pid, os.getuid(), 1)
        sync.send(ours, {"type": "fork", "cgroup": str(own_cgroup())})
        message, _ = sync.receive(ours)
        assert message is not None
        assert message["type"] == "created"
        sync.send(ours, {"type": "plan", "plan": plan}, [root, 0, 1, 2])
        message, _ = sync.receive(ours)
        assert message is not None
        assert message["type"] == "error"
        assert sync.receive(ours) == (None, [])
    os.close(root)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "the stage has done its work"


def test_init_needs_the_standard_library_only() -> None:
    """What runs in the monitor's children starts under `python -I -S`, with one thread and without gRPC."""
    root = Path(init.__file__).resolve().parents[2]
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r});"
        "import agent.engine.init, agent.engine.rootfs, agent.engine.enter;"
        "import threading; print(threading.active_count(), sorted(set(m.split('.')[0] for m in sys.modules)"
        " - set(sys.stdlib_module_names) - {'__main__'}))"
    )
    out = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "1 ['agent']"
