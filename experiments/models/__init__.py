"""Models under audit: one file for each kind."""
