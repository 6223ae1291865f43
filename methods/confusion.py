"""One slice for each kind of error."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor

from methods.contract import ModelOutputs, Slices, Unsupported
from methods.ranges import check_ranges


@dataclass
class Confusion:
    """The off-diagonal cells (label, prediction) of the confusion matrix with the largest total loss.

    It sees labels and predictions only: what a method must beat to show that embeddings help. Within a cell,
    examples are ranked by the probability of the wrong class.

    Parameters
    ----------
    n_slices : int
        At least 1; fewer come back where c classes have fewer than n_slices kinds of error.

    Attributes
    ----------
    cells_ : list of (int, int)
        (label, prediction) of each slice, the worst first.

    Notes
    -----
    The confusion baseline of dcbench (Eyuboglu et al. 2022), there for two classes.

    Examples
    --------
    >>> arrays = {"labels": [0, 1, 0], "logits": [[2.0, 0.0], [0.0, 2.0], [0.0, 2.0]]}
    >>> outputs = ModelOutputs.from_arrays("abc", embeddings=torch.zeros(3, 1), **arrays)
    >>> Confusion(n_slices=1).fit(outputs).predict(outputs).members.flatten().tolist()
    [False, False, True]
    """

    version: ClassVar[int] = 1

    n_slices: int = field(default=5, metadata={"min": 1})

    def fit(self, outputs: ModelOutputs) -> Self:
        check_ranges(self)
        labels, logits = _labels_and_logits(outputs)
        n_classes = logits.shape[1]
        n_cells = min(self.n_slices, n_classes * (n_classes - 1))
        loss_of_cell = torch.zeros(n_classes, n_classes)
        loss_of_cell.index_put_((labels, logits.argmax(dim=1)), outputs.losses.cpu(), accumulate=True)
        loss_of_cell.fill_diagonal_(-torch.inf)  # a right answer is no error, however unsure
        worst = loss_of_cell.flatten().argsort(descending=True, stable=True)[:n_cells]
        self.cells_ = [divmod(int(cell), n_classes) for cell in worst]
        return self

    def predict(self, outputs: ModelOutputs) -> Slices:
        labels, logits = _labels_and_logits(outputs)
        predictions, probabilities = logits.argmax(dim=1), logits.softmax(dim=1)
        cells = [(labels == label) & (predictions == wrong) for label, wrong in self.cells_]
        members = torch.stack(cells, dim=1)  # (n, s)
        sureness = probabilities[:, [wrong for _, wrong in self.cells_]]  # (n, s)
        diagnostics = tuple({"cell": list(cell)} for cell in self.cells_)
        return Slices(outputs.example_ids, members * sureness, members, diagnostics)


def _labels_and_logits(outputs: ModelOutputs) -> tuple[Tensor, Tensor]:
    if outputs.labels is None or outputs.logits is None:
        raise Unsupported("Confusion needs labels and logits; these outputs have losses only")
    return outputs.labels.cpu(), outputs.logits.cpu()
