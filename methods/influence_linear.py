"""Influence embeddings over a final linear layer, in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import linear

from methods.errors import InvalidInput
from methods.influence_hessian import HessianFactors, Product, factor_hessian

ROWS = 1024  # examples multiplied at once: their logits stay in a processor's cache
MANY_CLASSES = 64  # from here on most residuals of a row are tiny
HEAVY = 1 / 128  # of a row's norm: a smaller residual is multiplied in bfloat16
CLASSES = 32  # of which the light residuals are multiplied at once
LIGHT_ROWS = 16_384  # share one conversion of the directions to bfloat16


@dataclass(frozen=True, eq=False)
class LinearInfluence:
    """Influence embeddings over a final linear layer, from its inputs and logits alone: no model is needed.

    Parameters
    ----------
    factors : HessianFactors
        Over the weight (c, d), flattened, then the bias (c,), as in nn.Linear.
    n_classes : int, >= 2
        c; a model with a single logit z has the columns (0, z).
    bias : bool
        Whether the layer has a bias.

    Notes
    -----
    With h the input of the layer, and [h, 1] where it has a bias, the gradient of the cross-entropy is the outer
    product (p - y) [h, 1]^T, which is equation 11's. The Hessian of the sum times V is
    sum_i (diag p_i - p_i p_i^T) V [h_i, 1] [h_i, 1]^T: two matrix products, and it depends on no label.

    References
    ----------
    Wang et al. (2023), equation 5.

    Examples
    --------
    >>> from methods.influence import residuals
    >>> features, logits = torch.tensor([[1.0], [-1.0], [0.0]]), torch.tensor([[0.0, 1.0], [0.0, -1.0], [0.0, 0.0]])
    >>> influence = LinearInfluence.fit(features, logits, krylov_dim=4, rank=2)
    >>> right, wrong = (influence.embed(features, residuals(logits, torch.tensor(y))) for y in ([1, 0, 1], [0, 1, 0]))
    >>> torch.cosine_similarity(right, wrong).round(decimals=4).tolist()
    [-1.0, -1.0, -1.0]
    """

    factors: HessianFactors
    n_classes: int
    bias: bool = True

    @classmethod
    def fit(
        cls,
        features: Tensor,
        logits: Tensor,
        *,
        bias: bool = True,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        **options: Any,
    ) -> Self:
        """Factor the Hessian of the cross-entropy summed over these rows.

        Parameters
        ----------
        features : Tensor, shape (n, d)
            Inputs of the layer, of training examples.
        logits : Tensor, shape (n, c)
        bias : bool
        dtype : torch.dtype
            Computed in; float64 where eigenvalues below 1e-4 of the largest matter.
        device : torch.device or str, optional
            That of the features where it is left out.
        **options
            Of `factor_hessian`: krylov_dim, rank, tolerance, seed, storage, basis_file, max_bytes.
        """
        _check_rows(features, logits, "logits")
        if logits.shape[1] < 2:
            raise InvalidInput("logits has 1 column, expected at least 2: give a single logit z as (0, z)")
        device = features.device if device is None else torch.device(device)
        probabilities = logits.to(device, dtype).softmax(dim=1)  # (n, c)
        n_parameters = logits.shape[1] * (features.shape[1] + bias)
        factors = factor_hessian(
            softmax_hessian(features, probabilities, bias),
            n_parameters,
            trace=_softmax_trace(features, probabilities, bias),
            dtype=dtype,
            device=device,
            **options,
        )
        return cls(factors, logits.shape[1], bias)

    @property
    def n_features(self) -> int:
        return self.factors.directions.shape[1] // self.n_classes - self.bias

    def embed(self, features: Tensor, residuals: Tensor) -> Tensor:
        """Influence embeddings of examples under the labels that the residuals hold.

        Parameters
        ----------
        features : Tensor, shape (m, d)
        residuals : Tensor, shape (m, c)
            p - y, see `residuals`.

        Returns
        -------
        Tensor, shape (m, D), of the factors' dtype, on the device of the features

        Notes
        -----
        Takes 2 c d D operations a row. With many classes nearly all residuals are tiny: in float32, on a processor
        that multiplies bfloat16 in hardware, those below 1/128 of a row's norm are multiplied in it, which is several
        times faster and changes an embedding by about 1e-4 of its norm.
        """
        self._check(features, residuals)
        weight, offset = self._parts()
        project, step = (_project_mixed, LIGHT_ROWS) if self._is_worth_mixing(weight) else (_project, ROWS)
        out = features.new_empty(len(features), self.factors.rank, dtype=weight.dtype)
        for rows in _blocks(len(features), step):
            h, r = features[rows].to(weight), residuals[rows].to(weight)
            out[rows] = (project(h, r, weight) + r @ offset.T).mul_(self._scale())
        return out

    def table(self, features: Tensor) -> Tensor:
        """What embeddings under any label are made of: b_c(x), the preconditioned gradient of logit c.

        Parameters
        ----------
        features : Tensor, shape (m, d)

        Returns
        -------
        Tensor, shape (m, c, D)
            To be given to `combine`.
        """
        weight, offset = self._parts()  # (D, c, d), (D, c)
        if features.ndim != 2 or features.shape[1] != self.n_features:
            raise InvalidInput(f"features has shape {tuple(features.shape)}, expected (rows, {self.n_features})")
        scaled = weight.permute(1, 0, 2) * self._scale()[:, None]  # (c, D, d)
        flat = linear(features.to(weight), scaled.flatten(0, 1), (offset.T * self._scale()).flatten())
        return flat.view(len(features), self.n_classes, -1).to(features.device)

    def _parts(self) -> tuple[Tensor, Tensor]:
        """The directions as weights (D, c, d) and offsets (D, c), zero without a bias."""
        n_weights = self.n_classes * self.n_features
        weight, offset = self.factors.directions[:, :n_weights], self.factors.directions[:, n_weights:]
        zero = weight.new_zeros(len(weight), self.n_classes)
        return weight.view(-1, self.n_classes, self.n_features), offset if self.bias else zero

    def _scale(self) -> Tensor:
        return self.factors.eigenvalues.rsqrt().to(self.factors.directions)

    def _is_worth_mixing(self, weight: Tensor) -> bool:
        if self.n_classes < MANY_CLASSES or weight.dtype != torch.float32 or weight.device.type != "cpu":
            return False
        has = torch.cpu.get_capabilities()
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))

    def _check(self, features: Tensor, residuals: Tensor) -> None:
        _check_rows(features, residuals, "residuals")
        expected = self.n_features, self.n_classes
        if (features.shape[1], residuals.shape[1]) != expected:
            raise InvalidInput(
                f"features and residuals have {features.shape[1]} and {residuals.shape[1]} columns, expected "
                f"{expected[0]} and {expected[1]}, those that the Hessian was made of"
            )


def softmax_hessian(features: Tensor, probabilities: Tensor, bias: bool = True) -> Product:
    """The product v -> H v of a linear layer under cross-entropy, summed over the rows.

    Parameters
    ----------
    features : Tensor, shape (n, d)
        Read by blocks of rows, and converted: they may be mapped from a file.
    probabilities : Tensor, shape (n, c)
        Their device and dtype are those of the vectors.
    bias : bool

    Examples
    --------
    >>> product = softmax_hessian(torch.tensor([[2.0]]), torch.tensor([[0.5, 0.5]]), bias=False)
    >>> product(torch.tensor([1.0, -1.0])).tolist()
    [2.0, -2.0]
    """
    d, c = features.shape[1], probabilities.shape[1]
    likeliest = probabilities.argmax(dim=1, keepdim=True)  # (n, 1)

    def product(vector: Tensor) -> Tensor:
        weight, offset = vector[: c * d].view(c, d), vector[c * d :] if bias else None
        total = torch.zeros_like(vector)
        for rows in _blocks(len(features), ROWS):
            h, p = features[rows].to(probabilities), probabilities[rows]
            change = linear(h, weight, offset)  # (b, c): of the logits
            # only differences of logits count: taken to the likeliest, whose p(1 - p) would be lost in rounding
            change -= change.gather(1, likeliest[rows])
            change -= torch.linalg.vecdot(change, p)[:, None]
            change *= p  # of the probabilities
            total[: c * d].view(c, d).addmm_(change.T, h)
            if bias:
                total[c * d :] += change.sum(dim=0)
        return total

    return product


def _softmax_trace(features: Tensor, probabilities: Tensor, bias: bool) -> float:
    """sum_i |[h_i, 1]|^2 sum_c p_ic (1 - p_ic)."""
    total = 0.0
    for rows in _blocks(len(features), ROWS):
        h, p = features[rows].to(probabilities).double(), probabilities[rows].double()
        likeliest = p.argmax(dim=1, keepdim=True)
        others = p.scatter(1, likeliest, 0)
        rest = others.sum(dim=1)  # (b,): 1 - p of the likeliest, without its rounding
        curvature = rest * (1 - rest) + (others * (1 - others)).sum(dim=1)
        total += torch.dot(h.square().sum(dim=1) + bias, curvature).item()
    return total


def _project(h: Tensor, r: Tensor, weight: Tensor) -> Tensor:
    """sum_c r_c weight_c h for each row: Tensor, shape (b, D); a matrix product for each class."""
    out = h.new_zeros(len(h), len(weight))
    for c in range(r.shape[1]):
        out.addmm_(h * r[:, c : c + 1], weight[:, c].T)
    return out


def _project_mixed(h: Tensor, r: Tensor, weight: Tensor) -> Tensor:
    """`_project`, with the many small residuals in bfloat16."""
    is_heavy = r.abs() >= HEAVY * r.norm(dim=1, keepdim=True)  # (b, c): a few of a row
    out = _project_light(h, r.masked_fill(is_heavy, 0), weight)
    by_class, r_by_class = is_heavy.T.contiguous(), r.T.contiguous()
    for c in by_class.any(dim=1).nonzero().flatten().tolist():
        rows = by_class[c].nonzero().flatten()
        out.index_add_(0, rows, (h[rows] * r_by_class[c, rows, None]) @ weight[:, c].T)
    return out


def _project_light(h: Tensor, r: Tensor, weight: Tensor) -> Tensor:
    out, h, r = h.new_zeros(len(h), len(weight)), h.bfloat16(), r.bfloat16()
    for first in range(0, r.shape[1], CLASSES):
        some = weight[:, first : first + CLASSES].bfloat16().permute(2, 1, 0)  # (d, classes, D)
        flat = some.reshape(len(some), -1)
        for rows in _blocks(len(h), ROWS):
            b = (h[rows] @ flat).view(-1, *some.shape[1:])  # (rows, classes, D)
            out[rows] += torch.bmm(r[rows, None, first : first + CLASSES], b).squeeze(1)
    return out


def _blocks(n_rows: int, step: int) -> Iterator[slice]:
    return (slice(start, start + step) for start in range(0, n_rows, step))


def _check_rows(features: Tensor, values: Tensor, name: str) -> None:
    for what, tensor in (("features", features), (name, values)):
        if tensor.ndim != 2 or len(tensor) == 0:
            raise InvalidInput(f"{what} has shape {tuple(tensor.shape)}, expected (rows, columns) with a row")
    if len(features) != len(values):
        raise InvalidInput(f"{name} has {len(values)} rows, features has {len(features)}")
