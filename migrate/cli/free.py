"""A mapping whose keys are people's own."""

from __future__ import annotations

from typing import Any


class Free(dict[str, Any]):
    """Such as labels: in a template a key that is not there is no mistake."""
