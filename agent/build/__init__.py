"""Builds images from Dockerfiles on this host: parse, plan, run, cache."""
