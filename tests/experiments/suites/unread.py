"""Examples that a test hands over, and that nobody may open."""

from collections.abc import Sequence


class Unread(Sequence):
    """Images that are not to be read."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, row):
        raise AssertionError(f"image {row} was read")
