"""Suites: slice problems of our own, made by changing what a model is trained on."""
