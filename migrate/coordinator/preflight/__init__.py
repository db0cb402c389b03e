"""What speaks for and against a move before anything is touched. docs/check.md"""
