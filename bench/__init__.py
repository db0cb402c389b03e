"""Benchmarks and long runs. None is part of `make test`; each prints what it measured and fails when it is wrong."""
