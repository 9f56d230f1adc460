"""The vendors: all that differs between them, one file each."""
