"""Real implementations of our own interfaces against a simulated world."""
