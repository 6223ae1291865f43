"""What can be said, and shown, of a finished run's slices: for analyses of experiments and for reports."""
