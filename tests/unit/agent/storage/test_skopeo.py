"""What skopeo's complaints mean; they are those of version 1.9.3."""

from __future__ import annotations

import pytest

from agent.errors import AgentError, NotFound, TransferError
from agent.storage import skopeo
from agent.storage.skopeo import DENIED, UNREACHABLE, Passing

pytestmark = pytest.mark.unit

NAME = "r.example:40403/certificate/denied:1"
BASE = "r.example:40403/certificate/denied"


@pytest.mark.parametrize(
    ("said", "kind", "code"),
    [
        (f"reading manifest 1 in {BASE}: manifest unknown: manifest unknown", NotFound, "image.not_found"),
        (f"reading manifest 1 in {BASE}: unauthorized: authentication required", TransferError, DENIED),
        ("received unexpected HTTP status: 403 Forbidden", TransferError, DENIED),
        ("received unexpected HTTP status: 502 Bad Gateway", Passing, UNREACHABLE),
        (f"writing blob {BASE}: happened during read: unexpected EOF", Passing, UNREACHABLE),
        (
            "pinging container registry: dial tcp 10.0.0.1:40403: connect: connection refused",
            TransferError,
            UNREACHABLE,
        ),
        ("x509: certificate signed by unknown authority", TransferError, UNREACHABLE),
        (
            'Get "https://r.example:40485/v2/": http: server gave HTTP response to HTTPS client',
            TransferError,
            UNREACHABLE,
        ),
        (f"{BASE}: something else", TransferError, "transfer"),
    ],
)
def test_a_complaint_becomes_the_error_that_it_means(said: str, kind: type[AgentError], code: str) -> None:
    """Ports that look like a status and images that are called like an error change nothing."""
    error = skopeo.meaning(
        f'time="2026-11-24T08:57:30Z" level=fatal msg="{said.replace(chr(34), chr(92) + chr(34))}"', NAME
    )
    assert (type(error), error.code) == (kind, code)
    assert "\\" not in error.message
