"""Containers: what they are, how they start, who watches them. No imports here: monitor and init start through this package."""
