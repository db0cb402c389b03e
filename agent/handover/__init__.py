"""A host's part of a move: the source's side, the target's side, and what is written down so that a restart can go on."""
