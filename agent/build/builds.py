"""The builds of this host: what they share, and what is put in order when the agent starts."""

from __future__ import annotations

import os
from collections.abc import Callable

from agent.build import overlay, runner
from agent.build.builder import Build
from agent.build.cache import Cache
from agent.build.events import Request
from agent.build.mounting import CacheDirectories
from agent.build.runner import Runner
from agent.config import AgentConfig
from agent.engine.container import Engine
from agent.errors import Unsupported
from agent.storage.images import Image, ImageStore


class Builder:
    """One an agent. Any number of builds at once."""

    def __init__(
        self, config: AgentConfig, images: ImageStore, engine: Engine, *, pull: Callable[[str], Image] | None = None
    ) -> None:
        """`pull` brings an image from a registry; without, a base must be here."""
        self._config, self._images, self._engine, self._pull = config, images, engine, pull
        self._mounts = config.run_dir / "builds"
        self.cache = Cache(config.state_dir / "build-cache")
        self._caches = CacheDirectories(self.cache.mounts)

    def recover(self) -> None:
        """After the engine's own recovery: the containers and mounts of builds that the agent's end cut off go."""
        runner.sweep(self._engine)
        overlay.clear(self._mounts)

    def build(self, request: Request) -> Build:
        """A build to run. Raises DockerfileError, InvalidArgument, Unsupported."""
        if request.pull and self._pull is None:
            raise Unsupported("this agent cannot pull images", hint="import newer ones, and leave --pull out")
        commands = Runner(self._config, self._engine, ids=request.ids, address=request.address)
        return Build(
            request,
            self._images,
            self.cache,
            commands,
            self._mounts / os.urandom(8).hex(),
            caches=self._caches,
            pull=self._pull,
        )
