"""Moves a writable layer to another host exactly, in rounds, while a container writes to it.

    source = TreeSource(upper)                         target = TreeTarget(empty_upper)
    for frame in source.delta():          ──frames──►  target.apply(frame)      first round: everything
    for frame in source.delta():          ──frames──►  target.apply(frame)      what changed since
    (freeze)
    for frame in source.delta(last=True): ──frames──►  target.apply(frame)      the rest; now the trees are equal
    source.digest()                            ==      target.finish()

Both sides know an inode by an id that the source gives it, not by a path: so a renamed directory costs one record, a
hard link is a second name of one id, and the target never resolves a path from the wire. The source compares inode
numbers and times with its previous look, at what the kernel has named since (tree_watch) or at everything (tree_scan);
then, in a changed file, the hashes of its blocks with those that it sent. Why nothing is missed: docs/trees.md.
The records are drawn in `tree_records`.

Neither side may see the merged overlay: upper directories are read raw, with their whiteouts (character device 0:0)
and opaque markers.
"""

from agent.storage.tree_source import TreeSource
from agent.storage.tree_target import TreeTarget

__all__ = ["TreeSource", "TreeTarget"]
