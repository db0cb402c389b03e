"""Raw kernel interface: one function a system call, OSError only, standard library only."""
