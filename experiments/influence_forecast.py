"""What influence embeddings of a run will take, said before they are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from experiments.console import say
from experiments.reading.stored import Stored
from methods.influence import PROBES
from methods.influence_estimate import Estimate, estimate_factors, estimate_table, peak_growth
from methods.influence_gradients import LayerGradients
from methods.influence_hessian import free_bytes, seconds_of
from methods.influence_linear import softmax_hessian

if TYPE_CHECKING:
    from torch import nn

    from experiments.embeddings.influence import Work

LONG = 60.0  # seconds that are worth a line before they begin
SAMPLE = 32  # examples that are measured on a processor; a GPU is measured with a whole batch
SAMPLE_OF_HEAD = 1024  # the same where only the last layer runs


@dataclass(frozen=True)
class Forecast:
    """What is left to compute of a run's influence embeddings.

    Parameters
    ----------
    n_parameters : int
        Of the chosen layers.
    n_sampled : int
        Examples that were measured.
    factors : Estimate, optional
        Of the Hessian; None where they are cached.
    table : Estimate, optional
        Of the projection of all examples that are embedded; None where it is cached, or takes no time worth telling.
    free : int, optional
        Bytes of memory that are free.
    """

    n_parameters: int
    n_sampled: int
    factors: Estimate | None
    table: Estimate | None
    free: int | None

    @property
    def seconds(self) -> float:
        return sum(part.seconds for part in (self.factors, self.table) if part)

    def text(self) -> str:
        """One sentence for the person at the terminal."""
        parts = {"factoring the Hessian": self.factors, "projecting the examples": self.table}
        lines = [
            f"{what} takes about {duration(part.seconds)} and {part.peak_bytes / 1e9:.1f} GB of memory"
            for what, part in parts.items()
            if part
        ]
        free = "" if self.free is None else f" ({self.free / 1e9:.1f} GB are free)"
        return (
            f"influence over {self.n_parameters:,} parameters, as measured on {self.n_sampled} examples: "
            f"{', '.join(lines)}{free}; fewer steps with embedding.krylov_dim, fewer examples with embedding.n_hessian"
        )


def announce(work: Work, names: Sequence[str]) -> None:
    """Say what embeddings of these splits will take where that is long."""
    forecast = forecast_of(work, names)
    if forecast is not None and forecast.seconds > LONG:
        say(forecast.text())


def forecast_of(work: Work, names: Sequence[str]) -> Forecast | None:
    """Measure a few products and gradients; None where everything is cached."""
    needs_factors = not work.factors_entry.exists
    names = [name for name in names if not (work.in_closed_form or work.table_entry(name).exists)]
    if not needs_factors and not names:
        return None
    if work.in_closed_form:
        return _of_head(work)
    n_sampled, free = _n_sampled(work), free_bytes(work.device)
    with work.module() as (module, layers):
        gradients = LayerGradients(module, layers)
        factors = _factors(work, module, layers, n_sampled) if needs_factors else None
        table = _table(work, gradients, names) if names else None
    return Forecast(gradients.n_parameters, n_sampled, factors, table, free)


def _n_sampled(work: Work) -> int:
    batch = work.settings.compute.batch_size
    return min(len(work.rows), batch if work.device.type == "cuda" else min(batch, SAMPLE))


def _factors(work: Work, module: nn.Module, layers: tuple[str, ...], n_sampled: int) -> Estimate:
    n, rows = len(work.rows), work.rows[:n_sampled]
    grown, found = peak_growth(work.device), []
    preparing = seconds_of(lambda: found.append(work.end(module, layers, rows)))
    end, layers, batches, kept = found[-1]
    gradients, batches_scale = LayerGradients(end, layers), min(n, work.settings.compute.batch_size) / n_sampled
    before, scale = int(grown() * batches_scale), n / n_sampled
    options = work.numbers | {"probes": PROBES, "device": work.device, "batches_scale": batches_scale}
    product = gradients.hessian_product(batches)
    estimate = estimate_factors(product, gradients.n_parameters, scale, **options)
    return Estimate(estimate.seconds + preparing * scale, max(before, estimate.peak_bytes) + int(kept * n))


def _table(work: Work, gradients: LayerGradients, names: Sequence[str]) -> Estimate:
    sizes = [work.dataset.split(name).n_examples for name in names]
    examples, _ = next(iter(work.batches(names[0], np.arange(min(sizes[0], SAMPLE)))))
    return estimate_table(gradients, examples, len(work.dataset.class_names), sum(sizes), work.influence.rank)


def _of_head(work: Work) -> Forecast | None:
    """Of a final linear layer, of which nothing need run."""
    split = work.influence.hessian_split
    if not work.predictions and isinstance(work.dataset.split(split).examples, Stored):
        return None
    # a forward pass is not worth it: of how long products take, examples tell nothing but how wide they are
    features, logits = work.hidden(split, work.rows[: SAMPLE_OF_HEAD if work.predictions else 1])
    if logits.shape[1] < 2:
        return None  # refused where it is used
    n_rows, n_parameters = len(work.rows), logits.shape[1] * (features.shape[1] + 1)
    n_sampled = min(n_rows, SAMPLE_OF_HEAD)
    features, probabilities = (
        values.to(work.device).expand(n_sampled, -1).contiguous() for values in (features, logits.softmax(dim=1))
    )
    product = softmax_hessian(features, probabilities)
    estimate = estimate_factors(product, n_parameters, n_rows / n_sampled, **work.numbers, device=work.device)
    held = n_rows * (features.shape[1] + 2 * logits.shape[1]) * features.itemsize  # inputs, logits, probabilities
    estimate = Estimate(estimate.seconds, estimate.peak_bytes + held)
    return Forecast(n_parameters, n_sampled, estimate, None, free_bytes(work.device))


def duration(seconds: float) -> str:
    """A time in words.

    Examples
    --------
    >>> duration(3.2), duration(95), duration(11_000)
    ('4 s', '2 min', '3.1 h')
    """
    if seconds < 90:
        return f"{max(1, -int(-seconds // 1)):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
