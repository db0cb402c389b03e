"""The agent: one host's container engine and its half of a move. Stays free of imports: monitor and init start through this package."""

__version__ = "0.1.0"  # of the one distribution that migrate is in, too
