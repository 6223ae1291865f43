"""Embeddings: one file each."""
