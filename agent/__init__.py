"""The agent: one host's container engine and its half of a move. Stays free of imports: monitor and init start through this package."""
