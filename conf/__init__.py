"""Names and numbers only, no logic."""
