"""Derivatives of a torch model by the parameters of chosen layers."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import softplus

from methods.errors import InvalidInput

Inputs = Tensor | Mapping[str, Tensor]  # a batch: one tensor, or keyword arguments of the model
Batches = Callable[[], Iterable[tuple[Inputs, Tensor]]]  # (inputs, labels), started anew at each call
Parts = dict[str, Tensor]  # parameter name -> tensor

BLOCK_BYTES = 2**27  # per-example gradients are made for as many examples at once as fit in here
BLOCK_ROWS = 256


def logits_of(output: Any) -> Tensor:
    """The logits in what a model returns: itself, or its field `logits` (transformers)."""
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits


@dataclass(frozen=True, eq=False)
class LayerGradients:
    """Gradients and Hessian-vector products of the cross-entropy by the parameters of chosen layers.

    The model is used as in evaluation mode, whatever mode it is in, and is left as it was: neither its mode nor its
    `requires_grad` nor its buffers change.

    Parameters
    ----------
    module : nn.Module
        On the device where everything is to be computed.
    layers : tuple of str, not empty
        Names of submodules, with all that is below them ("layer4"; "" is the whole model).
    to_logits : callable
        From what the model returns to logits (b, c); a single column z counts as (0, z).
    dtype : torch.dtype
        Computed in; parameters and inputs are converted.

    Raises
    ------
    InvalidInput
        Where a name is not one of the model's, with the nearest names, or has no parameters below it.

    Notes
    -----
    A vector of n_params numbers is the chosen parameters one after the other, each flattened, in the order of
    `module.named_parameters()`; a parameter that two layers share counts once.

    Attention is computed in its plain form, the only one with second derivatives. Per-example gradients are made by
    vmap; a model whose Python code branches on its inputs (BERT looks whether a mask hides anything) cannot be
    mapped so, and its examples are taken one by one.

    Examples
    --------
    >>> model = nn.Linear(1, 2)
    >>> _ = nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    >>> gradients = LayerGradients(model, ("",))
    >>> gradients.of_losses(torch.tensor([[3.0]]), torch.tensor([1])).tolist()
    [[1.5, -1.5, 0.5, -0.5]]
    >>> LayerGradients(nn.Sequential(nn.Linear(1, 2)), ("1",))
    Traceback (most recent call last):
    ...
    methods.errors.InvalidInput: the model has no layer called '1'; the nearest is 0
    """

    module: nn.Module
    layers: tuple[str, ...]
    to_logits: Callable[[Any], Tensor] = logits_of
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        with_parameters = [name for name, layer in self.module.named_modules() if any(True for _ in layer.parameters())]
        if not self.layers:
            raise InvalidInput(f"layers is empty, expected names like {', '.join(with_parameters[1:4])}")
        for name in self.layers:
            if name not in with_parameters:
                raise InvalidInput(_no_layer(name, dict(self.module.named_modules()), with_parameters))

    @cached_property
    def _state(self) -> Parts:
        """All parameters and buffers, detached and converted; whatever is so already is not copied."""
        tensors = [*self.module.named_parameters(), *self.module.named_buffers()]
        return {name: self._converted(tensor.detach()) for name, tensor in tensors}

    @cached_property
    def parameters(self) -> Parts:
        """The parameters of the chosen layers."""
        layers = [self.module.get_submodule(name) for name in self.layers]
        chosen = {id(parameter) for layer in layers for parameter in layer.parameters()}
        return {name: self._state[name] for name, p in self.module.named_parameters() if id(p) in chosen}

    @property
    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters.values())

    @property
    def device(self) -> torch.device:
        return next(iter(self.parameters.values())).device

    def split(self, vectors: Tensor) -> Parts:
        """Views of vectors (..., n_params) as tensors (..., *shape), one for each chosen parameter."""
        parts, start = {}, 0
        for name, parameter in self.parameters.items():
            part = vectors[..., start : start + parameter.numel()]
            parts[name] = part.view((*vectors.shape[:-1], *parameter.shape))
            start += parameter.numel()
        return parts

    def hessian_product(self, batches: Batches) -> Callable[[Tensor], Tensor]:
        """The product v -> H v, where H is the Hessian of the cross-entropy summed over all batches.

        Parameters
        ----------
        batches : callable
            Gives an iterable of (inputs, labels) and is called for each product; a batch is all that is in memory.

        Notes
        -----
        The gradient of v^T grad L: no layer needs forward-mode derivatives, and it takes no longer than with them.
        """

        def product(vector: Tensor) -> Tensor:
            total, parts, n_rows = torch.zeros_like(vector), self.split(vector), 0
            with self._still():
                for inputs, labels in batches():
                    inputs, labels = self._checked(inputs, labels)
                    n_rows += len(labels)
                    self._add_product(total, inputs, labels, parts)
            if n_rows == 0:
                raise InvalidInput("batches() gave no rows: it must start anew at each call, one for each product")
            return total

        return product

    def of_losses(self, inputs: Inputs, labels: Tensor) -> Tensor:
        """The gradient of each example's cross-entropy: Tensor, shape (b, n_params). All at once in memory."""
        gradients = self._of_losses(*self._checked(inputs, labels))
        return torch.cat([part.reshape(len(labels), -1) for part in gradients.values()], dim=1)

    def project_losses(self, directions: Tensor, inputs: Inputs, labels: Tensor) -> Tensor:
        """Directions times the gradient of each example's cross-entropy.

        Parameters
        ----------
        directions : Tensor, shape (D, n_params)
        inputs : Tensor or mapping of Tensors, with b rows
        labels : Tensor, shape (b,), int64

        Returns
        -------
        Tensor, shape (b, D)
        """
        inputs, labels = self._checked(inputs, labels)
        blocks = _blocks(len(labels), self.n_parameters * self.dtype.itemsize)
        parts = (self._of_losses(rows_of(inputs, rows), labels[rows]) for rows in blocks)
        return torch.cat([self._projected(directions, part) for part in parts])

    def project_logits(self, directions: Tensor, inputs: Inputs) -> Tensor:
        """Directions times the gradient of each of an example's logits: Tensor, shape (b, c, D).

        Takes c times the work and memory of `project_losses`.
        """
        inputs, n_rows = self._placed(inputs), n_rows_of(inputs)
        with self._still():
            n_classes = len(self._row_logits(self.parameters, _row(inputs, 0)))
        blocks = _blocks(n_rows, n_classes * self.n_parameters * self.dtype.itemsize)
        parts = (self._of_logits(rows_of(inputs, rows)) for rows in blocks)
        return torch.cat([self._projected(directions, part) for part in parts])

    def logits(self, inputs: Inputs) -> Tensor:
        """The model's logits: Tensor, shape (b, c)."""
        with self._still():
            return self._logits(self.parameters, self._placed(inputs))

    def _add_product(self, total: Tensor, inputs: Inputs, labels: Tensor, vector: Parts) -> None:
        def loss(parameters: Parts) -> Tensor:
            return _cross_entropy(self._logits(parameters, inputs), labels).sum()

        def slope(parameters: Parts) -> Tensor:
            gradient = grad(loss)(parameters)
            return torch.stack([(gradient[name] * vector[name]).sum() for name in vector]).sum()

        product = grad(slope)(self.parameters)
        for name, view in self.split(total).items():
            view += product[name]

    def _of_losses(self, inputs: Inputs, labels: Tensor) -> Parts:
        """Gradients of the losses, by parameter: (b, *shape)."""

        def loss(parameters: Parts, row: Inputs, label: Tensor) -> Tensor:
            return _cross_entropy(self._row_logits(parameters, row), label)

        with self._still():
            return _for_each_row(grad(loss), self.parameters, inputs, labels)

    def _of_logits(self, inputs: Inputs) -> Parts:
        """Gradients of the logits, by parameter: (b, c, *shape)."""
        with self._still():
            return _for_each_row(jacrev(self._row_logits), self.parameters, inputs)

    def _projected(self, directions: Tensor, gradients: Parts) -> Tensor:
        """One matrix product for each parameter, so that the gradients need not be joined: (b, D) or (b, c, D)."""
        total: Tensor | int = 0
        for name, direction in self.split(directions).items():
            gradient, rows = gradients[name], gradients[name].ndim - self.parameters[name].ndim
            flat = gradient.reshape(*gradient.shape[:rows], -1)
            total = total + flat @ direction.reshape(len(direction), -1).T  # (b, D) or (b, c, D)
        assert isinstance(total, Tensor)
        return total

    def _row_logits(self, parameters: Parts, row: Inputs) -> Tensor:
        """The logits of one example without a batch dimension: (c,)."""
        return self._logits(parameters, rows_of(row, None))[0]

    def _logits(self, parameters: Parts, inputs: Inputs) -> Tensor:
        positional, named = ((inputs,), {}) if isinstance(inputs, Tensor) else ((), dict(inputs))
        logits = self.to_logits(functional_call(self.module, {**self._state, **parameters}, positional, named))
        if logits.ndim == 1 or logits.shape[1] == 1:
            single = logits.reshape(-1)
            return torch.stack([torch.zeros_like(single), single], dim=1)
        return logits

    @contextmanager
    def _still(self) -> Iterator[None]:
        """Evaluation mode, no graph but torch.func's own, and attention with second derivatives."""
        training = [module for module in self.module.modules() if module.training]
        try:
            for module in training:
                module.training = False  # not eval(), which some models override
            with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
                yield
        finally:
            for module in training:
                module.training = True

    def _checked(self, inputs: Inputs, labels: Tensor) -> tuple[Inputs, Tensor]:
        inputs = self._placed(inputs)
        if labels.ndim != 1 or len(labels) != n_rows_of(inputs):
            raise InvalidInput(f"labels has shape {tuple(labels.shape)}, expected ({n_rows_of(inputs)},) as inputs has")
        return inputs, labels.to(self.device)

    def _placed(self, inputs: Inputs) -> Inputs:
        if isinstance(inputs, Tensor):
            return self._converted(inputs.to(self.device))
        return {name: self._converted(values.to(self.device)) for name, values in inputs.items()}

    def _converted(self, values: Tensor) -> Tensor:
        return values.to(self.dtype) if values.is_floating_point() else values


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """softplus(logsumexp of the other logits - the label's): (..., c), (...) -> (...).

    Equal to torch's, but where an example is confident its derivatives p - 1 and p (1 - p) are no rounding noise: in
    the Hessian of a model that fits its training set well, this noise would make negative eigenvalues.
    """
    is_label = torch.arange(logits.shape[-1], device=logits.device) == labels[..., None]
    others = logits.masked_fill(is_label, -torch.inf).logsumexp(dim=-1)
    return softplus(others - (logits * is_label).sum(dim=-1), threshold=40)  # beyond, softplus(z) is z in float64 too


def _no_layer(name: str, modules: Mapping[str, nn.Module], allowed: list[str]) -> str:
    if name in modules:
        return f"the layer {name!r} has no parameters ({type(modules[name]).__name__}): it cannot be influenced"
    near = difflib.get_close_matches(name, allowed, n=3) or [child for child in allowed if child and "." not in child]
    return f"the model has no layer called {name!r}; the nearest {'is' if len(near) == 1 else 'are'} {', '.join(near)}"


def _for_each_row(function: Callable[..., Parts], parameters: Parts, inputs: Inputs, *more: Tensor) -> Parts:
    """The function for each example, stacked."""
    try:
        mapped: Parts = vmap(function, in_dims=(None, 0, *(0 for _ in more)))(parameters, inputs, *more)
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
    else:
        return mapped
    rows = [
        function(parameters, _row(inputs, row), *(values[row] for values in more)) for row in range(n_rows_of(inputs))
    ]
    return {name: torch.stack([row[name] for row in rows]) for name in parameters}


def rows_at_once(bytes_of_row: int) -> int:
    """For how many examples gradients are made at once."""
    return min(BLOCK_ROWS, max(1, BLOCK_BYTES // bytes_of_row))


def _blocks(n_rows: int, bytes_of_row: int) -> Iterator[slice]:
    step = rows_at_once(bytes_of_row)
    return (slice(start, start + step) for start in range(0, n_rows, step))


def rows_of(inputs: Inputs, rows: slice | None) -> Inputs:
    """Some rows of a batch; None adds a dimension instead."""
    return inputs[rows] if isinstance(inputs, Tensor) else {name: values[rows] for name, values in inputs.items()}


def _row(inputs: Inputs, row: int) -> Inputs:
    return inputs[row] if isinstance(inputs, Tensor) else {name: values[row] for name, values in inputs.items()}


def n_rows_of(inputs: Inputs) -> int:
    """How many examples a batch has."""
    return len(inputs if isinstance(inputs, Tensor) else next(iter(inputs.values())))
