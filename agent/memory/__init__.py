"""Which pages of a running process tree changed: dirty trackers behind one interface."""
