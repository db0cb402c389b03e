"""Runs one command of a Dockerfile in a container of the engine, and gives what it changed.

The container is the engine's like any other, with the layers so far below; when it has ended its upper directory is read
as a layer, and it is removed whatever happened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent.build.events import BuildCancelled, Said
from agent.build.instructions import Execute
from agent.build.mounting import Ready
from agent.config import AgentConfig
from agent.engine.container import Engine
from agent.engine.spec import ContainerSpec, IdRange, Network
from agent.errors import AgentError, NotFound, WrongState

LABEL = "migrate.build"
# The engine writes these into every writable layer, or makes them as mount points: none of it is the command's work.
HOST_FILES = ("etc/hosts", "etc/hostname", "etc/resolv.conf")
MOUNT_POINTS = ("proc", "sys", "dev")
NO_NETWORK = Network(address="", mac="")


class Runner:
    """One command. `cancel()` from any thread ends it."""

    def __init__(self, config: AgentConfig, engine: Engine, *, ids: IdRange, address: Network) -> None:
        self._config, self.engine = config, engine
        self.ids = ids
        self._address = dataclasses.replace(address, gateway=address.gateway or config.build_gateway)
        self._guard = threading.Lock()
        self._cancelled = False
        self._running = ""

    @contextmanager
    def run(self, action: Execute, layers: Sequence[str], *, network: str, ready: Ready) -> Iterator[Run]:
        """In the body iterate over the Run for its output; then its exit code and its upper directory are there.

        `network`: "" the bridge, "none", or "host": the agent's own.
        """
        container_id = uuid.uuid4().hex
        spec = ContainerSpec(
            id=container_id,
            name=f"build-{container_id[:12]}",
            image="",
            image_digest="",
            layers=tuple(layers),
            argv=action.argv,
            env=(*action.env, *action.hidden, *ready.env),
            cwd=action.cwd,
            user=action.user,
            hostname=container_id[:12],
            ids=self.ids,
            network=NO_NETWORK if network else self._address,
            labels={LABEL: "1"},
        )
        try:
            self.check()
            own = dataclasses.replace(ready.local, host_network=network == "host")
            self.engine.create(spec, 0, own=own)
            with self._guard:
                self._running = container_id
            yield Run(self, container_id, self._config.containers_dir / container_id / "layer" / "upper")
        finally:
            with self._guard:
                self._running = ""
            with contextlib.suppress(NotFound):
                self.engine.remove(container_id, force=True)
        self.check()

    def cancel(self) -> None:
        """Idempotent. The command is killed; `run` then raises BuildCancelled."""
        with self._guard:
            self._cancelled = True
            self._kill()

    def check(self) -> None:
        """Raises BuildCancelled after `cancel`; a command that started just then is killed."""
        with self._guard:
            if self._cancelled:
                self._kill()
                raise BuildCancelled("the build was cancelled")

    def _kill(self) -> None:
        if self._running:
            with contextlib.suppress(WrongState, NotFound):  # it has not started, or has ended
                self.engine.kill(self._running)


class Run:
    """Iterate once: output until the end; then `exit_code`. `upper`: what it changed, until the context is left."""

    def __init__(self, runner: Runner, container_id: str, upper: Path) -> None:
        self.upper = upper
        self.exit_code = 255
        self._runner, self._engine, self._id = runner, runner.engine, container_id

    def __iter__(self) -> Iterator[Said]:
        attachment = self._engine.attach(self._id)
        try:
            self._engine.start(self._id)
            self._runner.check()
            for output in attachment:
                yield Said(stream=output.stream, data=output.data)
        finally:
            attachment.close()
        status = self._engine.wait(self._id)
        if status.exit_code is None or status.error:
            raise AgentError(f"the command has no exit status: {status.error or status.state}")
        self.exit_code = status.exit_code


def sweep(engine: Engine) -> None:
    """Remove the containers of builds that an agent's end cut off. Once, after the engine's recovery."""
    for status in engine.list():
        if LABEL in status.spec.labels:
            engine.remove(status.spec.id, force=True)
