"""Which part of a network is an example's embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Pool = Literal["mean", "first", "flatten"]
INPUT = ".input"  # what goes into a layer: some networks pool between their modules, and no module's output is it


@dataclass(frozen=True)
class Layer:
    """A layer whose output is kept, and how that becomes one row an example.

    Parameters
    ----------
    name : str
        Of a submodule of the model; `NAME.input` is what goes into it instead of what comes out.
    pool : {"flatten", "mean", "first"}
        Of a value of shape (b, channels, height, width) or (b, tokens, width): all of it, the mean over positions, or
        the first position.
    """

    name: str
    pool: Pool = "flatten"

    @property
    def module(self) -> str:
        """The name of the submodule.

        Examples
        --------
        >>> Layer("classifier.input").module
        'classifier'
        """
        return self.name.removesuffix(INPUT)

    @property
    def takes_input(self) -> bool:
        return self.name.endswith(INPUT)

    def rows(self, output: Tensor) -> Tensor:
        """Tensor, shape (b, columns)."""
        if self.pool == "flatten" or output.ndim == 2:
            return output.flatten(start_dim=1)
        # a convolution has its channels first, a transformer its width last
        positions = (
            output.flatten(start_dim=2).transpose(1, 2) if output.ndim == 4 else output
        )  # (b, positions, columns)
        return positions.mean(dim=1) if self.pool == "mean" else positions[:, 0]
