"""A real registry on loopback, Debian's `docker-registry`, with a certificate or a password file, and a way to it that breaks.

The program is taken out of Debian's package without installing it: the package would bring a service and a user.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import bcrypt

CACHE = Path("/var/cache/migrate/docker-registry")
USER, PASSWORD = "tester", "correct horse"


def program() -> str:
    """The registry's program: installed, or unpacked below the cache."""
    if found := shutil.which("docker-registry"):
        return found
    unpacked = CACHE / "usr/bin/docker-registry"
    if not unpacked.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        _download("docker-registry")
        (package,) = CACHE.glob("docker-registry_*.deb")
        subprocess.run(["dpkg-deb", "--extract", str(package), str(CACHE)], check=True)
        package.unlink()
    return str(unpacked)


def _download(package: str) -> None:
    """Into the cache. Mirrors fail now and then, and lists grow old: tried again, with new lists."""
    apt = ["apt-get", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"]
    for attempt in range(4):
        done = subprocess.run([*apt, "download", package], cwd=CACHE, check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return
        time.sleep(5 * attempt)
        subprocess.run([*apt, "update"], check=False, capture_output=True)
    raise AssertionError(f"apt-get download {package}: {done.stdout}{done.stderr}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Registry:
    """`name` is "127.0.0.1:PORT"; `data` its directory; `log` what it was asked."""

    def __init__(self, directory: Path, port: int) -> None:
        self.name = f"127.0.0.1:{port}"
        self.port = port
        self.data = directory / "data"
        self._log = directory / "log"

    @property
    def log(self) -> str:
        return self._log.read_text()

    def blob(self, digest: str) -> Path:
        found = digest.removeprefix("sha256:")
        return self.data / "docker/registry/v2/blobs/sha256" / found[:2] / found / "data"

    def asked(self, method: str, what: str) -> int:
        """How many requests of that kind it has answered."""
        return sum(1 for line in self.log.splitlines() if f'"{method} /v2/' in line and what in line)

    def credentials(self, password: str = PASSWORD) -> bytes:
        auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
        return json.dumps({"auths": {self.name: {"auth": auth}}}).encode()


@contextmanager
def registry(
    directory: Path, *, password: bool = False, certificate: tuple[Path, Path] | None = None
) -> Iterator[Registry]:
    """Run one. `certificate`: file and key, for https."""
    directory.mkdir()
    made = Registry(directory, free_port())
    http: dict[str, object] = {"addr": made.name, "secret": "test"}
    if certificate:
        http["tls"] = {"certificate": str(certificate[0]), "key": str(certificate[1])}
    config: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(made.data)}},
        "http": http,
    }
    if password:
        line = f"{USER}:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()}\n"
        (directory / "htpasswd").write_text(line)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
    (directory / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [program(), "serve", str(directory / "config.yml")], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        _wait(made, "https" if certificate else "http")
        yield made
    finally:
        process.kill()
        process.wait()


def _wait(made: Registry, scheme: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            if scheme == "http":
                urllib.request.urlopen(f"http://{made.name}/v2/", timeout=5).close()
            else:
                socket.create_connection(("127.0.0.1", made.port), 5).close()
            return
        except urllib.error.HTTPError as exc:
            exc.close()
            return  # 401: it answers
        except OSError:
            if time.monotonic() > deadline:
                raise AssertionError(f"the registry did not start:\n{made.log}") from None
            time.sleep(0.05)


class Breaker:
    """A port that leads to another one; `cuts` connections end after `after_bytes` towards the client, or from it.

    `stall`: they do not end, but bring nothing more.
    """

    def __init__(self, port: int, *, cuts: int, after_bytes: int, upload: bool = False, stall: bool = False) -> None:
        self.cuts = cuts
        self.down_bytes: list[int] = []  # of each connection that brought more than a page
        self._after, self._upload, self._stall = after_bytes, upload, stall
        self._closing = threading.Event()
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._start(self._serve)

    def close(self) -> None:
        """Ends it with all its connections."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._server.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self._start(self._connection, client)

    def _connection(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as upstream:
            up = self._start(self._pump, client, upstream, False)
            self._pump(upstream, client, True)
            up.join()

    def _pump(self, source: socket.socket, target: socket.socket, down: bool) -> None:
        count = 0
        try:
            while data := source.recv(1 << 16):
                count += len(data)
                target.sendall(data)
                if down != self._upload and count >= self._after and self._cut():
                    if self._stall:
                        self._closing.wait()
                    break
        except OSError:
            pass  # the other direction has ended it
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        if down and count > 1 << 16:
            self.down_bytes.append(count)

    def _cut(self) -> bool:
        with self._lock:
            self.cuts -= 1
            return self.cuts >= 0


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that it has signed itself, and its key."""
    paths = directory / "tls.crt", directory / "tls.key"
    words = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=test"]
    argv = ["openssl", "req", "-x509", *words, "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*argv, "-out", str(paths[0]), "-keyout", str(paths[1])], check=True, capture_output=True, env={**os.environ}
    )
    return paths
