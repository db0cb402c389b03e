"""Which versions of migrate understand each other, and who says no where they do not.

Every call says in its first bytes, as gRPC's user-agent, what its caller is: "migrate/0.1.0 protocol/2.2". The server looks at it
before anything else: another MAJOR is refused, nothing is done, and the error names both versions and which side to upgrade.
A higher MINOR only means that the peer knows more; who needs what an older one lacks asks first (HostFacts.protocol_minor).

MAJOR grows when an old peer would misunderstand a new one, MINOR when something is added that is asked for by name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

import migrate
from migrate.errors import MigrateError

MAJOR, MINOR = 2, 2
REHEARSAL_MINOR = 1  # Migration.Try, and `rehearsal` in Accept and PrepareTunnel
END_EXEC_MINOR = 2  # Migration.EndExec

_SAID = re.compile(r"\bmigrate/(?P<version>\S+) protocol/(?P<major>\d+)\.(?P<minor>\d+)\b")
_KEY = "user-agent"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """`version`: of the program; "" of one from before they said so, which spoke 2.0."""

    version: str
    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.version or 'an old version'} (protocol {self.major}.{self.minor})"


OURS = Peer(version=migrate.__version__, major=MAJOR, minor=MINOR)


class IncompatibleVersion(MigrateError):
    """The other side is of a version that this one would misunderstand. Nothing was done."""

    code = "protocol.incompatible"
    default_exit_status = 5


def user_agent(own: Peer = OURS) -> str:
    """What a channel says of its side."""
    return f"migrate/{own.version} protocol/{own.major}.{own.minor}"


@functools.lru_cache(maxsize=64)
def heard(text: str) -> Peer:
    """Of a caller's user-agent."""
    found = _SAID.search(text)
    if found is None:
        return Peer(version="", major=2, minor=0)
    return Peer(version=found["version"], major=int(found["major"]), minor=int(found["minor"]))


def refusal(caller: Peer, own: Peer, *, who: str, caller_is: str) -> IncompatibleVersion | None:
    """Why `who` does not answer that caller; None where it does. Both names are for people: "the agent of host1", "the coordinator"."""
    if caller.major == own.major:
        return None
    old, its = (caller_is, caller) if caller.major < own.major else (who, own)
    new = own if its is caller else caller
    return IncompatibleVersion(
        f"{who} is migrate {own}, {caller_is} is {caller}: they do not understand each other, nothing was done",
        hint=f"upgrade {old} to migrate {new.version or f'of protocol {new.major}'}; containers run on meanwhile",
    )


class VersionInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]  # grpcio ships no types
    """Give to grpc.server(interceptors=[ErrorInterceptor(), this]): the first one makes its refusal a status."""

    def __init__(self, who: str, caller_is: str, own: Peer = OURS) -> None:
        self._who, self._caller_is, self._own = who, caller_is, own

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)
        said = next((value for key, value in handler_call_details.invocation_metadata if key == _KEY), "")
        found = refusal(heard(str(said)), self._own, who=self._who, caller_is=self._caller_is)
        if found is None or handler is None:
            return handler

        def refuse(_request: Any, _context: Any) -> Any:
            raise found

        kind = "stream" if handler.request_streaming else "unary"
        factory = getattr(grpc, f"{kind}_{'stream' if handler.response_streaming else 'unary'}_rpc_method_handler")
        return factory(
            refuse,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
