"""Trees of files as tars, read and placed through descriptors: both ends of `migrate cp` use it. Standard library only.

Whoever else can write to a tree is taken for hostile: paths are resolved by the kernel with the tree as "/", names are never
followed at their end, and what a file is gets looked at after it was opened.
"""
