"""A small fleet out of namespaces on one machine: real sshd, real agents, real CRIU."""
