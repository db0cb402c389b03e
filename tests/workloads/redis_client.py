"""redis_client.py ADDRESS [PORT [STATUS]]: one connection to a Redis, INCR as fast as it answers.

Proves, in a container: a connection that goes out of it, and its place in a dialogue. Each reply must be exactly
one more than the one before; `longest_gap_s` is the longest time between two replies.
"""
# ruff: noqa: PTH105
# One small program with descriptors that stay open: os, not pathlib.

import json
import os
import socket
import sys
import time


def main() -> None:
    address = sys.argv[1]
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 6379
    status = sys.argv[3] if len(sys.argv) > 3 else "/srv/redis_client.json"
    token = os.urandom(16).hex()
    key = f"count:{token}"
    request = f"*2\r\n$4\r\nINCR\r\n${len(key)}\r\n{key}\r\n".encode()
    connection = socket.create_connection((address, port), timeout=30)
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    replies = connection.makefile("rb")
    count, longest_s, problems, report_at, last = 0, 0.0, [], 0.0, time.monotonic()
    while True:
        connection.sendall(request)
        reply = replies.readline()
        now = time.monotonic()
        longest_s, last = max(longest_s, now - last), now
        if reply != b":%d\r\n" % (count + 1):
            problems.append(f"after {count} came {reply!r}")
            if not reply.startswith(b":"):
                break
        count = int(reply[1:])
        if now >= report_at:
            report_at = now + 0.2
            write(status, token, count, longest_s, problems)
    write(status, token, count, longest_s, problems)
    sys.exit(f"the connection is gone: {problems[-1]}")


def write(status: str, token: str, count: int, longest_s: float, problems: list) -> None:
    state = {"token": token, "count": count, "longest_gap_s": longest_s, "problems": problems[:20]}
    with open(status + ".new", "w") as file:
        json.dump(state, file)
    os.replace(status + ".new", status)


if __name__ == "__main__":
    main()
