"""Checkpoint and restore through CRIU. No imports here: the monitor starts through this package."""
