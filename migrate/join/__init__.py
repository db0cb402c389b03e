"""A machine becomes a host, is upgraded, is taken back: what is done there over the operator's own ssh.

Runs where the operator types, with his keys; the coordinator never has them. It is asked for its authority and, at the end,
to take the host in.
"""
