"""tcp_echo.py [PORT [STATUS]]: answers each line with its number on that connection and the line itself.

Proves: established TCP connections with their counters, a listening socket, threads. The client that sends line N
gets "N line" once, or the connection is not the one that it opened.
"""
# ruff: noqa: PLW0603, PTH105
# One small program with descriptors that stay open: os, not pathlib.

import json
import os
import socket
import sys
import threading
import time

lock = threading.Lock()
lines = 0
connections = 0


def serve(connection: socket.socket) -> None:
    global lines, connections
    with lock:
        connections += 1
    number = 0
    try:
        with connection, connection.makefile("rwb") as stream:
            for line in stream:
                number += 1
                with lock:
                    lines += 1
                stream.write(b"%d %s" % (number, line))
                stream.flush()
    except OSError:
        pass  # the client is gone: its business
    with lock:
        connections -= 1


def report(status: str, token: str) -> None:
    while True:
        with lock:
            text = json.dumps({"token": token, "count": lines, "connections": connections, "problems": []})
        with open(status + ".new", "w") as file:
            file.write(text)
        os.replace(status + ".new", status)
        time.sleep(0.2)


def main() -> None:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 7000
    status = sys.argv[2] if len(sys.argv) > 2 else "/srv/tcp_echo.json"
    listener = socket.create_server(("0.0.0.0", port), backlog=64)
    threading.Thread(target=report, args=(status, os.urandom(16).hex()), daemon=True).start()
    print(f"ready on {port}", flush=True)
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
