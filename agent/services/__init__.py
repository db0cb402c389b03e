"""Thin gRPC services: unpack, call, map the error, pack."""
