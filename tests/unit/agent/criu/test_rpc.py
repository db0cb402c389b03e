"""CRIU's answers as the monitor reads them, against pycriu's own protobuf classes."""

from __future__ import annotations

from typing import Any

import pytest

from agent.criu import options, rpc
from agent.errors import Unsupported
from agent.setup.criu import locate

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def pb() -> Any:
    """pycriu.rpc_pb2, or a skip that names what is missing."""
    try:
        return options.load(locate().pycriu_path)
    except Unsupported as exc:
        pytest.skip(f"missing capability: pycriu ({exc.message})")


def test_notification_is_read(pb: Any) -> None:
    """A NOTIFY gives its script's name and init's pid."""
    message = pb.criu_resp(type=pb.NOTIFY, success=True, notify=pb.criu_notify(script="post-restore", pid=4711))
    seen = rpc.parse(message.SerializeToString())
    assert (seen.kind, seen.script, seen.pid) == (rpc.NOTIFY, "post-restore", 4711)


def test_final_response_is_read(pb: Any) -> None:
    """A RESTORE response gives success, the pid, the errno and CRIU's first error."""
    message = pb.criu_resp(
        type=pb.RESTORE, success=False, restore=pb.criu_restore_resp(pid=12), cr_errno=17, cr_errmsg="Error: no\n"
    )
    seen = rpc.parse(message.SerializeToString())
    assert (seen.kind, seen.success, seen.pid, seen.errno, seen.message) == (rpc.RESTORE, False, 12, 17, "Error: no")


@pytest.mark.parametrize("yes", [True, False])
def test_answer_to_a_notification(pb: Any, yes: bool) -> None:
    """The bytes of an answer are what protobuf would write."""
    assert rpc.notification_answer(yes) == pb.criu_req(type=pb.NOTIFY, notify_success=yes).SerializeToString()


@pytest.mark.parametrize("packet", [b"", b"\x08", b"\xff\xff", b"\x2a\x7fabc"])
def test_garbage_is_refused(packet: bytes) -> None:
    """What is no response raises ValueError instead of looking like one."""
    with pytest.raises(ValueError, match=r"protobuf|response"):
        rpc.parse(packet)
