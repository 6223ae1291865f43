"""A static HTML report of run folders: `slicebench report DIR`."""
