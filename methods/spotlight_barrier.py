"""The penalty that keeps a spotlight from shrinking below its size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NARROWEST = 0.05  # w / S at the end


@dataclass(frozen=True, eq=False)
class Barrier:
    """C max(S + w - K, 0)^2 / w^2 of b spotlights, with a width w of its own at each step.

    Parameters
    ----------
    reach : Tensor, shape (steps, b), float64
        S + w: the total weight below which it presses.
    stiffness : Tensor, shape (steps, b), float64, in nats
        2 C / w^2, its second derivative there.

    References
    ----------
    d'Eon et al. (2022), equation 4; its width in section 3.
    """

    reach: Tensor
    stiffness: Tensor

    @classmethod
    def shrinking(cls, sizes: Tensor, penalties: Tensor, widths: Tensor, steps: int) -> Barrier:
        """Widths that fall geometrically to `NARROWEST` S at the last step; constant where they begin below that.

        Parameters
        ----------
        sizes, penalties, widths : Tensor, shape (b,)
            S, C and the first w.
        steps : int, >= 1

        Examples
        --------
        >>> one = torch.ones(1)
        >>> Barrier.shrinking(100 * one, one, 500 * one, steps=3).reach.flatten().tolist()
        [600.0, 150.0, 105.0]
        """
        sizes, penalties, widths = (each.double() for each in (sizes, penalties, widths))
        last = NARROWEST * sizes
        first = torch.maximum(widths, last)
        done = np.linspace(0, 1, steps)
        # one spotlight after the other: a power rounds in another way at the end of an array, or of a thread's part
        each = [start * (end / start) ** done for start, end in zip(first.tolist(), last.tolist(), strict=True)]
        width = torch.from_numpy(np.stack(each, axis=1)).to(sizes.device)  # (steps, b)
        return cls(sizes + width, 2 * penalties / width.square())

    def of(self, spotlights: Tensor) -> Barrier:
        """That of some of them."""
        return Barrier(self.reach[:, spotlights], self.stiffness[:, spotlights])
