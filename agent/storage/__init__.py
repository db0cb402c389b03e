"""Bytes on disk: image blobs, unpacked layers, writable layers and the difference between two states of one."""
