"""What a host needs and has: set-up, and the probes behind `migrate doctor`.

Standard library only: it runs before anything is installed.
"""
