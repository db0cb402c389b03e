"""The CRIU that set-up chose, through its own door."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from agent.setup import criu

pytestmark = pytest.mark.criu


def test_located_criu_answers_over_rpc() -> None:
    """Started by its wrapper with an inherited descriptor, `criu swrk` answers pycriu's requests with the same version."""
    install = criu.locate()
    code = f"import sys; sys.path.insert(0, {str(install.pycriu_path)!r}); from pycriu import rpc_pb2; "
    request = subprocess.run(
        [sys.executable, "-c", code + "sys.stdout.buffer.write(rpc_pb2.criu_req(type=rpc_pb2.VERSION).SerializeToString())"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        worker = subprocess.Popen(
            [str(install.binary), "swrk", str(theirs.fileno())], pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL
        )
        theirs.close()
        ours.settimeout(20)
        ours.send(request)
        answer = ours.recv(65536)
    assert worker.wait(timeout=20) == 0
    show = (
        "answer = rpc_pb2.criu_resp.FromString(bytes.fromhex(sys.argv[1])); "
        "print(answer.version.major_number, answer.version.minor_number)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code + show, answer.hex()], capture_output=True, text=True, check=True
    )
    major, minor = printed.stdout.split()
    assert (int(major), int(minor)) == install.version[:2]


def test_located_criu_accepts_this_kernel() -> None:
    """`criu check` finds everything that CRIU needs."""
    assert criu.check(criu.locate().binary) == ""
