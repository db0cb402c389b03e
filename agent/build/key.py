"""The key under which a step's layer is kept: what the step sees, and nothing else. Pure.

    key = sha256(layers so far, what is done, digests of the files that it takes)

Not in it: names of stages, times of files, proxies, contents of secrets, and metadata that a command cannot see (LABEL,
CMD, EXPOSE). So a layer is found again whenever the same thing is done on the same files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from agent.build.instructions import Copy, Execute, MakeDirectory

FORMAT = 1  # another number forgets all that is kept: for changes of what a step does


def of(
    layers: Sequence[str], action: MakeDirectory | Copy | Execute, digests: Mapping[str, str], *, platform: str
) -> str:
    """64 hex digits. `layers`: diff ids, base first. `digests`: what is used -> digest of its bytes, names, modes."""
    return _hash(
        {
            "format": FORMAT,
            "platform": platform,
            "layers": list(layers),
            "kind": type(action).__name__,
            "action": _seen(action),
            "digests": dict(digests),
        }
    )


def _seen(action: MakeDirectory | Copy | Execute) -> dict[str, Any]:
    fields = dataclasses.asdict(action)
    if isinstance(action, Execute):
        del fields["hidden"]
        fields["env"] = sorted(action.env)
    elif isinstance(action, Copy):
        del fields["from_"]  # the digests say what comes, it does not matter from where
    return fields


def _hash(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
