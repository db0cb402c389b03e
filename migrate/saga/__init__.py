"""A persisted list of steps that survives a crash at any instant. Knows nothing of containers."""
