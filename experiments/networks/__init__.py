"""What models share: weights, their layouts, and what turns examples into tensors."""
