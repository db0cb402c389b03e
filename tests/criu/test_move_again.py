"""A container that moves on before the memory of its last move is in place."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from migrate.lab import nodes
from migrate.lab.demo_run import Outside
from migrate.records import Run
from tests.criu.moving_lab import MovingLab

pytestmark = pytest.mark.criu

REDIS = ("redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/tmp")


def test_moves_at_once_lose_no_memory(fleet: MovingLab) -> None:
    """Three moves without a pause, while lazily restored memory is still arriving: every value is what was written."""
    container = fleet.client.run(Run(image="redis", name="restless", argv=REDIS, host="host1"))
    try:
        outside = Outside(fleet.lab, container.address.partition("/")[0], 6379)
        outside.wait_for_server()
        filled = outside.data("fill", 100, "restless")
        for target in ("host2", "host1", "host2"):
            fleet.cli("move", "restless", "--to", target).check_returncode()
        found = outside.data("verify", 100, "restless")
        assert (found["missing"], found["wrong"], found["keys"]) == (0, 0, filled["keys"])
    finally:
        fleet.client.remove("restless", force=True)


# Accepts one connection in 20 ms, and says its number; so there is nearly always one in the queue.
SLOW_ACCEPTOR = """
import socket, time
listener = socket.create_server(("0.0.0.0", 7300), backlog=64)
while True:
    connection, _ = listener.accept()
    connection.sendall(connection.recv(100))
    connection.close()
    time.sleep(0.02)
"""
# Connects anew for each question, a few at once, up to the end of stdin; prints how many were answered and what went wrong.
STORM = """
import socket, sys, threading, time
address, over, wrong, answered = sys.argv[1], threading.Event(), [], []
def ask():
    while not over.is_set():
        try:
            with socket.create_connection((address, 7300), timeout=20) as connection:
                connection.sendall(b"question")
                (answered if connection.recv(100) == b"question" else wrong).append(1)
        except OSError as exc:
            wrong.append(str(exc))
        time.sleep(0.1)
threads = [threading.Thread(target=ask) for _ in range(2)]
[thread.start() for thread in threads]
sys.stdin.read()
over.set()
[thread.join() for thread in threads]
print(len(answered), wrong)
"""


def test_clients_that_connect_all_the_time_do_not_stop_a_move(fleet: MovingLab) -> None:
    """A connection in the accept queue at the freeze is no reason to fail: another try a moment later, and every client is answered."""
    argv = ("/usr/bin/python3", "-u", "-c", SLOW_ACCEPTOR)
    container = fleet.client.run(Run(image="work", name="busy", argv=argv, host="host1"))
    try:
        address = container.address.partition("/")[0]
        Outside(fleet.lab, address, 7300).wait_for_server()
        command = nodes.command(fleet.lab, "client", [sys.executable, "-c", STORM, address])
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as storm:
            time.sleep(1)
            for _ in range(3):
                fleet.move("busy")
            said, _ = storm.communicate(timeout=60)
        answered, wrong = said.split(maxsplit=1)
        assert wrong.strip() == "[]"
        assert int(answered) > 20
    finally:
        fleet.client.remove("busy", force=True)
