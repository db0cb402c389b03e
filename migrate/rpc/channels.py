"""How every gRPC channel and server of ours is set up.

Keepalive finds a peer that is gone without a word; through a tunnel ssh's own does, and a local process cannot vanish,
so the times are long. The server must permit what the client sends, or it ends the connection with "too_many_pings".
"""

from __future__ import annotations

from pathlib import Path

import grpc

from migrate.rpc import version

MAX_MESSAGE_BYTES = 16 << 20
MAX_METADATA_BYTES = 32 << 10
CONNECT_LIMIT_S = 10.0
KEEPALIVE_INTERVAL_S = 20
KEEPALIVE_TIMEOUT_S = 10
MAX_SOCKET_PATH_BYTES = 107  # sockaddr_un.sun_path, less the final zero

_COMMON: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_INTERVAL_S * 1000),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_S * 1000),
)

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    *_COMMON,
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_INTERVAL_S * 1000 // 2),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.so_reuseport", 0),
)

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    *_COMMON,
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.use_local_subchannel_pool", 1),  # a second channel to a path must not wait for the first one's backoff
    ("grpc.enable_http_proxy", 0),
)


def unix_target(path: Path) -> str:
    """gRPC's name for a unix socket. ValueError where the kernel would not take the path."""
    if len(bytes(path)) > MAX_SOCKET_PATH_BYTES:
        raise ValueError(f"{path} is {len(bytes(path))} bytes long; a unix socket's path takes {MAX_SOCKET_PATH_BYTES}")
    return f"unix:{path.absolute()}"


def unix_channel(
    path: Path, *, connect_limit_s: float = CONNECT_LIMIT_S, own: version.Peer = version.OURS
) -> grpc.Channel:
    """A channel to the server on `path`; connects with the first call. The caller closes it.

    `connect_limit_s`: how long one attempt may take; a tunnel's takes 0.5 s. `own`: what this side says it is.
    """
    attempt = ("grpc.min_reconnect_backoff_ms", round(connect_limit_s * 1000))  # despite its name
    said = ("grpc.primary_user_agent", version.user_agent(own))
    return grpc.insecure_channel(unix_target(path), options=(*CHANNEL_OPTIONS, attempt, said))
