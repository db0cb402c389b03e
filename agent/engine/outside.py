"""What the engine needs of agent.storage, which it does not import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol


class ImageStore(Protocol):
    """What the engine needs of agent.storage.images."""

    def layer_path(self, diff_id: str) -> Path:
        """The unpacked layer. Raises NotFound."""


class WritableLayer(Protocol):
    """What the engine needs of agent.storage.layers."""

    def create(self) -> None: ...

    def seed(self, files: Mapping[str, bytes], lower: Sequence[Path] = ()) -> None:
        """Write files ("/etc/hosts"); their directories look as in the layers of `lower`, base first."""
