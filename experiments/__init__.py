"""The pipeline from a data set to a leaderboard, and the command line."""
