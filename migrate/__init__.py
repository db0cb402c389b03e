"""Move running containers between Linux hosts: coordinator, command line and client library."""

__version__ = "0.1.0"
