"""Influence embeddings: examples are near each other where training examples influence them alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from experiments.batches import Batches
from experiments.cache import Entry
from experiments.compute import device_of
from experiments.contract import Dataset, ModelUnderAudit, Split
from experiments.embedding import Embedded
from experiments.inference import LOGITS, Predictions, evaluated_splits, forward
from experiments.influence_forecast import Forecast, announce, forecast_of
from experiments.keys import derive
from experiments.layers import Layer
from experiments.reading.stored import Stored
from experiments.settings import Settings, SplitName
from methods.contract import InvalidInput, Unsupported
from methods.influence import ModuleInfluence, combine, residuals
from methods.influence_end import cut
from methods.influence_gradients import Batches as ModuleBatches
from methods.influence_gradients import LayerGradients
from methods.influence_hessian import HessianFactors, bytes_needed, check_memory, free_bytes
from methods.influence_linear import LinearInfluence
from methods.progress import progress

FLOAT = 4  # bytes
LOWEST = -80.0  # of logits that are the logarithm of a probability: float32 knows none below -87
NOT_LINEAR = 1e-3  # relative error of logits as a linear map of the final hidden layer


@dataclass(frozen=True)
class Influence:
    """Influence embeddings over chosen layers (InfEmbed): they depend on the label, and follow it when it is changed.

    Parameters
    ----------
    layers : list of str, optional
        Modules whose parameters count; where it is left out, the final linear layer: in closed form, or, where a
        class is made of several of its outputs (a superclass of ImageNet's), by automatic differentiation of that end.
    krylov_dim : int
        P: Hessian-vector products. At least twice `rank`, or the last directions are not worth much.
    rank : int
        D: dimensions of the embedding, fewer where the Hessian has fewer positive eigenvalues.
    tolerance : float
        Eigenvalues below this share of the largest are dropped.
    n_hessian : int, optional
        Training examples that the Hessian is made of, drawn by `seeds.training`; all where it is left out.
    hessian_split : {"train", "validation", "test"}
        Where they are from.

    Notes
    -----
    Wang et al. (2023), equation 5 and appendix C.1. Examples are read, and go through what comes before the first of
    the layers, once: what goes into that layer is kept in memory, where it fits and nothing else reaches the logits.
    """

    version: ClassVar[int] = 1

    layers: tuple[str, ...] | None = None
    krylov_dim: int = field(default=500, metadata={"min": 2})
    rank: int = field(default=100, metadata={"min": 1})
    tolerance: float = field(default=1e-6, metadata={"above": 0, "below": 1})
    n_hessian: int | None = field(default=None, metadata={"min": 2})
    hessian_split: SplitName = "train"

    def hidden_layers(self, model: ModelUnderAudit) -> tuple[Layer, ...]:
        for name in self.layers or ():
            model.layer(name)  # refuses a name that is not there
        return (model.final_hidden,) if self.layers is None else ()

    def splits(self) -> tuple[str, ...]:
        return (self.hessian_split,)

    def embed(
        self, settings: Settings, dataset: Dataset, model: ModelUnderAudit, predictions: Mapping[str, Predictions]
    ) -> dict[str, Embedded]:
        return self.embed_splits(settings, dataset, model, predictions, evaluated_splits(settings))

    def embed_splits(
        self,
        settings: Settings,
        dataset: Dataset,
        model: ModelUnderAudit,
        predictions: Mapping[str, Predictions],
        names: Iterable[str],
    ) -> dict[str, Embedded]:
        """Embeddings of any splits whose predictions there are."""
        work, names = Work(self, settings, dataset, model, predictions), list(names)
        announce(work, names)
        return {name: work.embedded(name) for name in names}

    def check(self, settings: Settings, dataset: Dataset, model: ModelUnderAudit) -> None:
        """Raise `InvalidInput` with the arithmetic where the factors do not fit into memory: before any training."""
        if self.layers is not None:
            Work(self, settings, dataset, model).check()

    def forecast(
        self, settings: Settings, dataset: Dataset, model: ModelUnderAudit, names: Iterable[str]
    ) -> Forecast | None:
        """What embeddings of these splits will take; None where nothing is left to compute that takes long."""
        return forecast_of(Work(self, settings, dataset, model), list(names))

    def kept(
        self, settings: Settings, dataset: Dataset, model: ModelUnderAudit, names: Iterable[str]
    ) -> dict[str, tuple[Entry, int]]:
        """What embeddings of these splits leave in the cache, and how many bytes these are at most."""
        return Work(self, settings, dataset, model).kept(names)


class End(NamedTuple):
    """What runs in each product, and the bytes of each example that are kept for it."""

    module: nn.Module
    layers: tuple[str, ...]
    batches: ModuleBatches
    kept: float


class Work:
    """Influence embeddings of one model: the factors once, then split by split."""

    def __init__(
        self,
        influence: Influence,
        settings: Settings,
        dataset: Dataset,
        model: ModelUnderAudit,
        predictions: Mapping[str, Predictions] | None = None,
    ) -> None:
        self.influence, self.settings, self.dataset, self.model = influence, settings, dataset, model
        self.predictions, self.device = predictions or {}, device_of(settings.compute)
        self.in_closed_form = influence.layers is None and model.grouped is None
        self.rows = self._hessian_rows()

    @cached_property
    def factors(self) -> HessianFactors:
        return HessianFactors.from_arrays(self.factors_entry.get(self._write_factors), self.device)

    @property
    def factors_entry(self) -> Entry:
        return self._entry("influence_factors", {})

    def table_entry(self, name: str) -> Entry:
        return self._entry("influence", {"split": name})

    def embedded(self, name: str) -> Embedded:
        predictions, report = self.predictions[name], self._report()  # the Hessian comes first
        labels = predictions.split.labels
        if labels is None:
            raise _no_labels(name)
        relabel = self._linear(predictions) if self.in_closed_form else self._table(name, predictions)
        return Embedded(relabel(labels), relabel, report)

    def _linear(self, predictions: Predictions) -> Callable[[Tensor], Tensor]:
        features, logits = predictions.hidden[self.model.final_hidden], predictions.logits
        influence = LinearInfluence(self.factors, logits.shape[1])
        return lambda labels: influence.embed(features.to(self.device), self._residuals(logits, labels)).float().cpu()

    def _table(self, name: str, predictions: Predictions) -> Callable[[Tensor], Tensor]:
        fill = partial(self._write_table, name)
        table = torch.from_numpy(self.table_entry(name).get(fill)["table"])  # (n, c, D)
        return lambda labels: combine(table, residuals(predictions.logits, labels)).float()

    def _residuals(self, logits: Tensor, labels: Tensor) -> Tensor:
        return residuals(logits.to(self.device), labels.to(self.device))

    def _report(self) -> dict[str, Any]:
        factors = self.factors
        return {
            "eigenvalues": factors.eigenvalues.tolist(),
            "effective_rank": factors.effective_rank,
            "captured_curvature": factors.captured,
            "krylov_steps": factors.n_steps,
            "hessian_examples": len(self.rows),
            "notes": list(factors.notes),
        }

    def _hessian_rows(self) -> np.ndarray:
        n = self.dataset.split(self.influence.hessian_split).n_examples
        wanted = self.influence.n_hessian or n
        if wanted > n:
            raise InvalidInput(f"embedding.n_hessian is {wanted}, expected at most {n}, the examples of the split")
        generator = np.random.default_rng(derive(self.settings.seeds.training, "examples of the Hessian"))
        return np.sort(generator.permutation(n)[:wanted])

    @property
    def numbers(self) -> dict[str, int]:
        return {"krylov_dim": self.influence.krylov_dim, "rank": self.influence.rank}

    def _entry(self, stage: str, more: Mapping[str, Any]) -> Entry:
        influence = self.influence
        depends = {
            "model": self.model.key,
            "data": self.dataset.fingerprint,
            "layers": influence.layers and list(influence.layers),
            "numbers": [influence.krylov_dim, influence.rank, influence.tolerance],
            "hessian": [influence.hessian_split, self.rows.tolist()],
            "version": influence.version,
            **more,
        }
        return Entry(self.settings.paths.cache, stage, depends)

    def _write_factors(self, folder: Path) -> None:
        options = {
            **self.numbers,
            "tolerance": self.influence.tolerance,
            "seed": derive(self.settings.seeds.training, "start of the Lanczos iteration"),
            "device": self.device,
        }
        factors = self._factors_of_linear(options) if self.in_closed_form else self._factors_of_module(options)
        for name, values in factors.to_arrays().items():
            np.save(folder / f"{name}.npy", values, allow_pickle=False)

    def _factors_of_linear(self, options: Mapping[str, Any]) -> HessianFactors:
        split = self.influence.hessian_split
        features, logits = self.hidden(split, self.rows)
        _check_linear(features, logits, stored=isinstance(self.dataset.split(split).examples, Stored))
        return LinearInfluence.fit(features, logits, **options).factors

    def _factors_of_module(self, options: Mapping[str, Any]) -> HessianFactors:
        options = {name: value for name, value in options.items() if name != "device"}  # the module's own
        with self.module() as (module, layers):
            end, layers, batches, _ = self.end(module, layers, self.rows)
            return ModuleInfluence.fit(end, layers, batches, **options).factors

    def end(self, module: nn.Module, layers: tuple[str, ...], rows: np.ndarray) -> End:
        """What of the module must run in each product, on what; all of it where it cannot be cut or kept."""
        batches = partial(self.batches, self.influence.hessian_split, rows)
        found = cut(module, layers, batches, fits=self._fits(module, layers)) if self.influence.layers else None
        if found is None:
            return End(module, layers, batches, 0.0)
        kept = sum(inputs.nbytes for inputs, _ in found.batches() if isinstance(inputs, Tensor)) / len(rows)
        return End(found.module, found.layers, found.batches, kept)

    def _fits(self, module: nn.Module, layers: tuple[str, ...]) -> Callable[[float], bool]:
        n_parameters, free = LayerGradients(module, layers).n_parameters, free_bytes(self.device)
        factors = bytes_needed(n_parameters, self.influence.krylov_dim, self.influence.rank)
        return lambda each: free is None or factors + each * len(self.rows) < free

    def check(self) -> None:
        """Raise `InvalidInput` with the arithmetic where the factors, not computed yet, do not fit into memory."""
        if self.factors_entry.exists:
            return
        names = tuple(f"module.{name}" for name in self.influence.layers or ())
        n_parameters, precision = LayerGradients(_Logits(self.model), names).n_parameters, torch.float32
        remedy = "choose fewer embedding.layers or a smaller embedding.krylov_dim"
        numbers = (self.influence.krylov_dim, self.influence.rank, precision, precision)
        check_memory(n_parameters, *numbers, free_bytes(self.device), remedy)

    def kept(self, names: Iterable[str]) -> dict[str, tuple[Entry, int]]:
        """Entries and their bytes, by stage; none where outputs were stored: how wide these are, reading would tell."""
        split, rank = self.dataset.split(self.influence.hessian_split), min(self.numbers.values())
        if not self.in_closed_form:
            with self.module() as (module, layers):
                n_parameters = LayerGradients(module, layers).n_parameters
        elif isinstance(split.examples, Stored):
            return {}
        else:
            features, logits = self.hidden(self.influence.hessian_split, self.rows[:1])
            n_parameters = logits.shape[1] * (features.shape[1] + 1)
        found = {"factor the Hessian": (self.factors_entry, n_parameters * rank * FLOAT)}
        if not self.in_closed_form:
            row = len(self.dataset.class_names) * rank * FLOAT
            found |= {
                f"project {name}": (self.table_entry(name), self.dataset.split(name).n_examples * row) for name in names
            }
        return found

    def _write_table(self, name: str, folder: Path) -> None:
        """Write the table block by block: (n, c, D) may be larger than memory."""
        n_examples, n_classes, at = self.dataset.split(name).n_examples, len(self.dataset.class_names), 0
        shape = (n_examples, n_classes, self.factors.rank)
        table = np.lib.format.open_memmap(folder / "table.npy", mode="w+", dtype=np.float32, shape=shape)
        everything = np.arange(n_examples)
        n_batches = -(-n_examples // self.settings.compute.batch_size)
        with self.module() as (module, layers):
            influence = ModuleInfluence(LayerGradients(module, layers), self.factors)
            steps = progress(range(n_batches), "gradients", n_batches)
            for _, (examples, _) in zip(steps, self.batches(name, everything), strict=True):
                table[at : at + len(examples)] = influence.table(examples).float().cpu().numpy()
                at += len(examples)
        table.flush()

    @contextmanager
    def module(self) -> Iterator[tuple[nn.Module, tuple[str, ...]]]:
        """A module that gives logits, on the device, and the names of the layers in it."""
        whole = self.influence.layers is not None
        module = (_Logits(self.model) if whole else _GroupedLogits(self.model)).to(self.device)
        try:
            yield module, tuple(f"module.{name}" for name in self.influence.layers or ()) or ("module",)
        finally:
            module.to("cpu")

    def batches(self, name: str, rows: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        """What the module takes, with labels, of some rows of a split."""
        for examples, labels in self._inputs(name, rows):
            if labels is None:
                raise _no_labels(name)
            yield examples.to(self.device), labels.to(self.device)

    def _inputs(self, name: str, rows: np.ndarray) -> Iterable[tuple[Tensor, Tensor | None]]:
        """Examples, or what inference kept of them where only the head runs."""
        split, compute = self.dataset.split(name), self.settings.compute
        if self.influence.layers is not None:
            return Batches(split, self.model, compute, rows=rows.tolist())
        if split.labels is None:
            raise _no_labels(name)
        (features, _), labels = self.hidden(name, rows), split.labels[torch.from_numpy(rows)]
        return zip(features.split(compute.batch_size), labels.split(compute.batch_size), strict=True)

    def hidden(self, name: str, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """The inputs of the final layer and the logits: as inference kept them, or computed where it has not run."""
        layer = self.model.final_hidden
        if name in self.predictions:
            predictions, at = self.predictions[name], torch.from_numpy(rows)
            return predictions.hidden[layer][at], predictions.logits[at]
        split = self.dataset.split(name)
        ids = [split.example_ids[row] for row in rows]
        some = Split(tuple(ids), [split.examples[row] for row in rows], None, split.attributes.loc[ids])
        found = forward(self.model, some, (LOGITS, layer), self.settings.compute)
        return torch.from_numpy(found[layer]), torch.from_numpy(found[LOGITS])


def _no_labels(name: str) -> InvalidInput:
    return InvalidInput(f"the {name} split has no labels, which influence embeddings depend on")


class _Logits(nn.Module):
    """The model under audit as a module whose output is its logits."""

    def __init__(self, model: ModelUnderAudit) -> None:
        super().__init__()
        self.module, self._model = model.module, [model]  # in a list: no part of the module's state
        self.eval()

    def forward(self, batch: Tensor) -> Tensor:
        return self._model[0].logits(batch)


class _GroupedLogits(nn.Module):
    """What comes after the input of the final linear layer, in a model whose classes are sums of its outputs."""

    def __init__(self, model: ModelUnderAudit) -> None:
        super().__init__()
        assert model.grouped is not None
        self.module, self._grouped = model.layer(model.embedding_layer), model.grouped
        self.eval()

    def forward(self, features: Tensor) -> Tensor:
        return self._grouped(self.module(features))


def _check_linear(features: Tensor, logits: Tensor, stored: bool = False) -> None:
    """Raise `Unsupported` unless logits are a linear map of the features, as they are in front of a linear layer."""
    if logits.shape[1] == 0:
        raise Unsupported("influence embeddings need logits (or probabilities); these outputs have losses only")
    known = logits.amin(dim=1) > (LOWEST if stored else -torch.inf)  # a probability that was stored as 0 says nothing
    # of stored probabilities the logits are known up to one number a row, which changes no gradient
    logits = logits.double() - logits.double().mean(dim=1, keepdim=True)
    features, logits = features[known], logits[known]
    bordered = torch.cat([features, torch.ones(len(features), 1)], dim=1).double()  # (n, d + 1)
    if len(bordered) <= bordered.shape[1]:
        return  # too few rows to tell
    fitted = bordered @ torch.linalg.lstsq(bordered, logits, driver="gelsd").solution
    if (fitted - logits).norm() > NOT_LINEAR * logits.norm():
        remedy = (
            "choose another embedding" if stored else "name the layers whose parameters count, embedding.layers=[...]"
        )
        raise Unsupported(f"the model's embedding layer is not the input of a final linear layer: {remedy}")
