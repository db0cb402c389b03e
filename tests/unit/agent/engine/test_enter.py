import errno
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.engine import enter, sync

pytestmark = pytest.mark.unit

ROOT = Path(enter.__file__).resolve().parents[2]


def ask(message: dict[str, Any] | None) -> tuple[dict[str, Any] | None, int]:
    """What the helper answers to one message, and its exit status."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            argv = [sys.executable, "-I", "-S", enter.__file__, str(ROOT), str(theirs.fileno())]
            helper = subprocess.Popen(argv, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL)
        if message is None:
            ours.shutdown(socket.SHUT_WR)
        else:
            sync.send(ours, message)
        answer, _ = sync.receive(ours)
        return answer, helper.wait(20)


def test_a_request_that_is_none_is_refused_with_a_message() -> None:
    """Missing fields are reported, not a traceback."""
    answer, status = ask({"argv": ["x"]})
    assert status == 1
    assert answer is not None
    assert (answer["step"], answer["errno"]) == ("request", errno.EINVAL)


def test_a_process_that_is_gone_is_not_entered() -> None:
    """A pid without a process ends in an error that names the step and ESRCH or ENOENT."""
    answer, status = ask({"pid": (1 << 22) + 1, "start_ticks": 1, "cgroups": [], "rlimits": {}, "oom_score_adj": 0})
    assert status == 1
    assert answer is not None
    assert answer["step"] in ("stdio", "enter")
    assert answer["errno"] in (errno.ESRCH, errno.ENOENT)


def test_an_agent_that_says_nothing_ends_the_helper() -> None:
    """End of file instead of a request: the helper goes."""
    assert ask(None) == (None, 1)
