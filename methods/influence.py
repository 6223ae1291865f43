"""Influence embeddings: vectors whose dot products say how training on one example changes the loss of another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from methods.errors import InvalidInput
from methods.influence_gradients import Batches, Inputs, LayerGradients, logits_of
from methods.influence_hessian import HessianFactors, factor_hessian

PROBES = 8  # products spent on estimating the trace


@dataclass(frozen=True, eq=False)
class ModuleInfluence:
    """Influence embeddings over chosen layers of any torch model.

    mu(z) = diag(lambda)^(-1/2) M^T grad L(z), so that the influence of z' on z, which is the change in the loss of z
    if z' is left out and the model retrained, is mu(z')^T mu(z).

    Parameters
    ----------
    gradients : LayerGradients
        The model and the names of its layers.
    factors : HessianFactors
        Over the same parameters.

    Notes
    -----
    All of the model runs in each Hessian-vector product, and batches are read anew: where the chosen layers are its
    end, let `methods.influence_end.cut` compute once what goes into them.

    References
    ----------
    Wang et al. (2023), equation 5 and algorithm 2.

    Examples
    --------
    >>> model = nn.Linear(2, 2)
    >>> inputs, labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), torch.tensor([0, 1, 0])
    >>> influence = ModuleInfluence.fit(model, [""], lambda: [(inputs, labels)], krylov_dim=6, rank=3)
    >>> embeddings = influence.embed(inputs, labels)
    >>> under_any_label = combine(influence.table(inputs), residuals(model(inputs), labels))
    >>> embeddings.shape, torch.allclose(embeddings, under_any_label, atol=1e-4)
    (torch.Size([3, 3]), True)
    """

    gradients: LayerGradients
    factors: HessianFactors

    def __post_init__(self) -> None:
        found, expected = self.factors.directions.shape[1], self.gradients.n_parameters
        if found != expected:
            raise InvalidInput(f"the factors are over {found} parameters, the chosen layers have {expected}")

    @classmethod
    def fit(
        cls,
        module: nn.Module,
        layers: Sequence[str],
        batches: Batches,
        to_logits: Callable[[Any], Tensor] = logits_of,
        *,
        dtype: torch.dtype = torch.float32,
        probes: int = PROBES,
        **options: Any,
    ) -> Self:
        """Factor the Hessian of the cross-entropy summed over these batches.

        Parameters
        ----------
        module, layers, to_logits, dtype
            See `LayerGradients`; everything is computed on the module's device.
        batches : callable
            Gives an iterable of (inputs, labels) of training examples, the same at each call: it is called once for
            each product. The inputs are a tensor, or a dict of tensors that are the model's keyword arguments.
        probes : int, >= 0
            Products spent on an estimate of the trace, for `captured`; none without any.
        **options
            Of `factor_hessian`: krylov_dim, rank, tolerance, seed, storage, basis_file, max_bytes.
        """
        gradients = LayerGradients(module, tuple(layers), to_logits, dtype)
        product, n_parameters = gradients.hessian_product(batches), gradients.n_parameters
        device = gradients.device
        return cls(
            gradients, factor_hessian(product, n_parameters, probes=probes, dtype=dtype, device=device, **options)
        )

    def embed(self, inputs: Inputs, labels: Tensor) -> Tensor:
        """Influence embeddings of a batch of examples under these labels: Tensor, shape (b, D).

        The gradients of an example take n_params numbers; they are made for a few examples at once, and gone after
        one matrix product with the directions.
        """
        return self.gradients.project_losses(self.factors.directions, inputs, labels) * self._scale()

    def table(self, inputs: Inputs) -> Tensor:
        """What embeddings under any label are made of, to be given to `combine`: Tensor, shape (b, c, D).

        b_c(x) = diag(lambda)^(-1/2) M^T grad f_c(x), the preconditioned gradient of logit c.
        """
        return self.gradients.project_logits(self.factors.directions, inputs) * self._scale()

    def _scale(self) -> Tensor:
        return self.factors.eigenvalues.rsqrt().to(self.factors.directions)


def residuals(logits: Tensor, labels: Tensor) -> Tensor:
    """The derivative of the cross-entropy by the logits, p - y.

    Parameters
    ----------
    logits : Tensor, shape (n, c)
    labels : Tensor, shape (n,), int64, in [0, c)

    Returns
    -------
    Tensor, shape (n, c), rows sum to 0

    Notes
    -----
    The label's entry p - 1 is computed as minus the sum of the others: of a confident example nothing else would be
    left of it.

    Examples
    --------
    >>> residuals(torch.tensor([[0.0, 0.0], [0.0, 40.0]]), torch.tensor([0, 1]))
    tensor([[-5.0000e-01,  5.0000e-01],
            [ 4.2484e-18, -4.2484e-18]])
    """
    if labels.shape != logits.shape[:1]:
        raise InvalidInput(f"labels has shape {tuple(labels.shape)}, expected ({len(logits)},) as logits has rows")
    column = labels[:, None]
    others = logits.softmax(dim=1).scatter_(1, column, 0)
    return others.scatter_(1, column, -others.sum(dim=1, keepdim=True))


def combine(table: Tensor, residuals: Tensor) -> Tensor:
    """Influence embeddings under the labels that the residuals hold: mu(x, y) = sum_c (p_c - y_c) b_c(x).

    Parameters
    ----------
    table : Tensor, shape (n, c, D)
        Of `LinearInfluence` or `ModuleInfluence`.
    residuals : Tensor, shape (n, c)
        See `residuals`.

    Returns
    -------
    Tensor, shape (n, D)

    Examples
    --------
    >>> combine(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[-0.5, 0.5]])).tolist()
    [[1.0, 1.0]]
    """
    if table.shape[:2] != residuals.shape:
        raise InvalidInput(f"residuals has shape {tuple(residuals.shape)}, expected {tuple(table.shape[:2])}")
    return torch.bmm(residuals[:, None].to(table), table).squeeze(1)
