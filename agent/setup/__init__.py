"""What a host needs and has: the set-up of CRIU and the probes behind `migrate doctor`. Standard library only: it runs before anything is installed."""
