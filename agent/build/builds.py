"""The builds of this host: what they share, and what is put in order when the agent starts."""

from __future__ import annotations

import os

from agent.build import overlay, runner
from agent.build.builder import Build
from agent.build.cache import Cache
from agent.build.events import Request
from agent.build.mounting import CacheDirectories
from agent.build.runner import Runner
from agent.config import AgentConfig
from agent.engine.container import Engine
from agent.storage import ingest, registry
from agent.storage.images import Image, ImageStore
from agent.storage.skopeo import Access


class Builder:
    """One an agent. Any number of builds at once."""

    def __init__(self, config: AgentConfig, images: ImageStore, engine: Engine) -> None:
        self._config, self._images, self._engine = config, images, engine
        self._mounts = config.run_dir / "builds"
        self.cache = Cache(config.state_dir / "build-cache")
        self._caches = CacheDirectories(self.cache.mounts)

    def recover(self) -> None:
        """After the engine's own recovery: the containers and mounts of builds that the agent's end cut off go."""
        runner.sweep(self._engine)
        overlay.clear(self._mounts)

    def build(self, request: Request, *, access: Access) -> Build:
        """A build to run. `access`: to the registries of base images. Raises DockerfileError, InvalidArgument."""
        commands = Runner(self._config, self._engine, ids=request.ids, address=request.address)

        def pull(name: str) -> Image:
            source = registry.find(name, access)
            with self._images.hold() as hold:
                ingest.fetch(self._images, source, hold, lambda _progress: commands.check())
                return ingest.record(self._images, source)

        return Build(
            request,
            self._images,
            self.cache,
            commands,
            self._mounts / os.urandom(8).hex(),
            caches=self._caches,
            pull=pull,
        )
