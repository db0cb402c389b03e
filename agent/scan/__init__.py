"""What of a container CRIU cannot save, or should not: found by reading /proc, before anything is touched. docs/check.md"""
