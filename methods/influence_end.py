"""The end of a model: what of it depends on chosen layers, with all that comes before computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from methods.influence_gradients import Batches, LayerGradients, logits_of

CLOSE = 1e-4  # of the largest: logits and gradients of the end are those of the whole model up to rounding


class ModelEnd(nn.Module):
    """A model as a function of what goes into the first of some layers.

    The whole model runs on one example again and again, but modules that come before that layer hand on what they
    are given, and the layer gets its inputs from elsewhere. So nothing need be known of how the model is built; that
    logits depend on those inputs alone is for `cut` to check.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode; it stays as it is. Its layer "fc" is "module.fc" of this one.
    first : nn.Module
        The first of the layers that runs: once, with one tensor.
    before : tuple of nn.Module
        What runs before it, and not again.
    example : Tensor, shape (1, ...)
        An input of the model.
    """

    example: Tensor

    def __init__(self, module: nn.Module, first: nn.Module, before: tuple[nn.Module, ...], example: Tensor) -> None:
        super().__init__()
        self.module, self._parts = module, (first, before)  # in a tuple: no further submodules
        self.register_buffer("example", example, persistent=False)
        self.eval()

    def forward(self, entering: Tensor) -> Any:
        """What the model returns: shape (b, ...) of what enters -> logits (b, c), or what has them."""
        first, before = self._parts
        hook = first.register_forward_pre_hook(lambda *_: (entering.clone(),))  # it may be changed in place
        try:
            with _handing_on(before):
                return self.module(self.example.expand(len(entering), *self.example.shape[1:]))
        finally:
            hook.remove()

    @torch.no_grad()
    def entering(self, inputs: Tensor) -> tuple[Tensor, Any]:
        """What goes into the first layer for these inputs of the model, and what the model returns."""
        seen: list[Tensor] = []
        hook = self._parts[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
        try:
            output = self.module(inputs)
        finally:
            hook.remove()
        return seen[0], output


class Cut(NamedTuple):
    """A model's end, the names that the layers have there, and what goes into it.

    Parameters
    ----------
    module : nn.Module
    layers : tuple of str
    batches : callable
        As `LayerGradients.hessian_product` takes them.
    """

    module: nn.Module
    layers: tuple[str, ...]
    batches: Batches


def cut(
    module: nn.Module,
    layers: Sequence[str],
    batches: Batches,
    to_logits: Callable[[Any], Tensor] = logits_of,
    fits: Callable[[float], bool] = lambda _: True,
) -> Cut | None:
    """Cut a model before the first of the layers that runs, and compute once what goes in there.

    Parameters
    ----------
    module, layers, to_logits
        See `LayerGradients`; the module in evaluation mode.
    batches : callable
        Gives (inputs, labels), and is called once.
    fits : callable, bytes of an example -> bool
        Whether what goes in may be kept for all examples.

    Returns
    -------
    Cut or None
        None where the end does not depend on one tensor alone, so that all of the model must run each time: for every
        example the end's logits are compared with the model's, and for two of them the gradients as well.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    >>> found = cut(model, ["2"], lambda: [(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))])
    >>> found.layers, [tuple(entering.shape) for entering, _ in found.batches()]
    (('module.2',), [(4, 5)])
    """
    names, end = tuple(f"module.{name}" if name else "module" for name in layers), None
    kept: list[tuple[Tensor, Tensor]] = []
    for inputs, labels in batches():
        end = end or _end(module, layers, inputs)
        if end is None:
            return None
        assert isinstance(inputs, Tensor)
        entering, output = end.entering(inputs)
        if not kept:
            whole, alone = LayerGradients(module, tuple(layers), to_logits), LayerGradients(end, names, to_logits)
            few = whole.of_losses(inputs[:2], labels[:2])
            fitting = fits(entering.nbytes / len(entering))
            if not (fitting and _is_near(partial(alone.of_losses, entering[:2], labels[:2]), few)):
                return None
        if not _is_near(partial(_logits, end, to_logits, entering), to_logits(output)):
            return None
        kept.append((entering, labels))
    return None if end is None else Cut(end, names, lambda: kept)


def _logits(end: ModelEnd, to_logits: Callable[[Any], Tensor], entering: Tensor) -> Tensor:
    return to_logits(end(entering))


def _end(module: nn.Module, layers: Sequence[str], inputs: Any) -> ModelEnd | None:
    """The end, or None where the first layer takes more than one tensor, or runs again."""
    if not isinstance(inputs, Tensor):
        return None
    chosen = {part for name in layers for part in module.get_submodule(name).modules()}
    events = _events(module, inputs[:1])
    at = next((at for at, event in enumerate(events) if event.starts and event.module in chosen), None)
    if at is None or not events[at].takes_one_tensor:
        return None
    first, later = events[at].module, [event.module for event in events[at:] if event.starts]
    if later.count(first) > 1:
        return None
    done = dict.fromkeys(event.module for event in events[:at] if not event.starts)
    return ModelEnd(module, first, tuple(part for part in done if part not in later), inputs[:1])


class _Event(NamedTuple):
    module: nn.Module
    starts: bool
    takes_one_tensor: bool = False


@torch.no_grad()
def _events(module: nn.Module, inputs: Tensor) -> list[_Event]:
    """When each submodule starts and ends."""
    events: list[_Event] = []

    def start(part: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        one = len(given) == 1 and not named and isinstance(given[0], Tensor) and len(given[0]) == len(inputs)
        events.append(_Event(part, True, one))

    hooks = [part.register_forward_pre_hook(start, with_kwargs=True) for part in module.modules()]
    hooks += [
        part.register_forward_hook(lambda part, *_: events.append(_Event(part, False))) for part in module.modules()
    ]
    try:
        module(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return events


@contextmanager
def _handing_on(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Let modules return the first of what they are given."""
    before = [vars(module).get("forward") for module in modules]
    try:
        for module in modules:
            module.forward = _first
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            del module.forward
            if own is not None:
                module.forward = own


def _first(*given: Any, **named: Any) -> Any:
    return [*given, *named.values()][0]


@torch.no_grad()
def _is_near(compute: Callable[[], Tensor], expected: Tensor) -> bool:
    try:
        found = compute()
    except Exception:  # the model's own code, on values that it does not expect
        return False
    same = found.shape == expected.shape
    return same and bool((found - expected).abs().max() <= CLOSE * expected.abs().max())
