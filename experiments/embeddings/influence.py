"""Influence embeddings: examples are near each other where training examples influence them alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from experiments.batches import Batches
from experiments.cache import Entry
from experiments.compute import device_of
from experiments.contract import Dataset, ModelUnderAudit
from experiments.embedding import Embedded
from experiments.inference import Predictions, evaluated_splits
from experiments.keys import derive
from experiments.layers import Layer
from experiments.reading.stored import Stored
from experiments.settings import Settings, SplitName
from methods.contract import InvalidInput, Unsupported
from methods.influence import ModuleInfluence, combine, residuals
from methods.influence_gradients import LayerGradients
from methods.influence_hessian import HessianFactors
from methods.influence_linear import LinearInfluence
from methods.progress import progress

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
    Wang et al. (2023), equation 5 and appendix C.1.
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
        work = _Work(self, settings, dataset, model, predictions)
        return {name: work.embedded(name) for name in names}


class _Work:
    """Influence embeddings of one model: the factors once, then split by split."""

    def __init__(
        self,
        influence: Influence,
        settings: Settings,
        dataset: Dataset,
        model: ModelUnderAudit,
        predictions: Mapping[str, Predictions],
    ) -> None:
        self.influence, self.settings, self.dataset, self.model = influence, settings, dataset, model
        self.predictions, self.device = predictions, device_of(settings.compute)
        self.in_closed_form = influence.layers is None and model.grouped is None
        self.rows = self._hessian_rows()
        arrays = self._entry("influence_factors", {}).get(self._write_factors)
        self.factors = HessianFactors.from_arrays(arrays, self.device)

    def embedded(self, name: str) -> Embedded:
        predictions = self.predictions[name]
        labels = predictions.split.labels
        if labels is None:
            raise InvalidInput(f"the {name} split has no labels, which influence embeddings depend on")
        relabel = self._linear(predictions) if self.in_closed_form else self._table(name, predictions)
        return Embedded(relabel(labels), relabel, self._report())

    def _linear(self, predictions: Predictions) -> Callable[[Tensor], Tensor]:
        features, logits = predictions.hidden[self.model.final_hidden], predictions.logits
        influence = LinearInfluence(self.factors, logits.shape[1])
        return lambda labels: influence.embed(features.to(self.device), self._residuals(logits, labels)).float().cpu()

    def _table(self, name: str, predictions: Predictions) -> Callable[[Tensor], Tensor]:
        fill = partial(self._write_table, predictions)
        table = torch.from_numpy(self._entry("influence", {"split": name}).get(fill)["table"])  # (n, c, D)
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
        n = self.predictions[self.influence.hessian_split].split.n_examples
        wanted = self.influence.n_hessian or n
        if wanted > n:
            raise InvalidInput(f"embedding.n_hessian is {wanted}, expected at most {n}, the examples of the split")
        generator = np.random.default_rng(derive(self.settings.seeds.training, "examples of the Hessian"))
        return np.sort(generator.permutation(n)[:wanted])

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
            "krylov_dim": self.influence.krylov_dim,
            "rank": self.influence.rank,
            "tolerance": self.influence.tolerance,
            "seed": derive(self.settings.seeds.training, "start of the Lanczos iteration"),
            "device": self.device,
        }
        factors = self._factors_of_linear(options) if self.in_closed_form else self._factors_of_module(options)
        for name, values in factors.to_arrays().items():
            np.save(folder / f"{name}.npy", values, allow_pickle=False)

    def _factors_of_linear(self, options: Mapping[str, Any]) -> HessianFactors:
        predictions = self.predictions[self.influence.hessian_split]
        rows = torch.from_numpy(self.rows)
        features, logits = predictions.hidden[self.model.final_hidden][rows], predictions.logits[rows]
        _check_linear(features, logits, stored=isinstance(predictions.split.examples, Stored))
        return LinearInfluence.fit(features, logits, **options).factors

    def _factors_of_module(self, options: Mapping[str, Any]) -> HessianFactors:
        predictions = self.predictions[self.influence.hessian_split]
        options = {name: value for name, value in options.items() if name != "device"}  # the module's own
        with self._module() as (module, layers):
            return ModuleInfluence.fit(
                module, layers, partial(self._batches, predictions, self.rows), **options
            ).factors

    def _write_table(self, predictions: Predictions, folder: Path) -> None:
        """Write the table block by block: (n, c, D) may be larger than memory."""
        n_examples, n_classes, at = predictions.split.n_examples, len(self.dataset.class_names), 0
        shape = (n_examples, n_classes, self.factors.rank)
        table = np.lib.format.open_memmap(folder / "table.npy", mode="w+", dtype=np.float32, shape=shape)
        everything = np.arange(n_examples)
        n_batches = -(-n_examples // self.settings.compute.batch_size)
        with self._module() as (module, layers):
            influence = ModuleInfluence(LayerGradients(module, layers), self.factors)
            steps = progress(range(n_batches), "gradients", n_batches)
            for _, (examples, _) in zip(steps, self._batches(predictions, everything), strict=True):
                table[at : at + len(examples)] = influence.table(examples).float().cpu().numpy()
                at += len(examples)
        table.flush()

    @contextmanager
    def _module(self) -> Iterator[tuple[nn.Module, tuple[str, ...]]]:
        """A module that gives logits, on the device, and the names of the layers in it."""
        whole = self.influence.layers is not None
        module = (_Logits(self.model) if whole else _GroupedLogits(self.model)).to(self.device)
        try:
            yield module, tuple(f"module.{name}" for name in self.influence.layers or ()) or ("module",)
        finally:
            module.to("cpu")

    def _batches(self, predictions: Predictions, rows: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        for examples, labels in self._inputs(predictions, rows):
            assert labels is not None  # `embedded` refuses a split without labels
            yield examples.to(self.device), labels.to(self.device)

    def _inputs(self, predictions: Predictions, rows: np.ndarray) -> Iterable[tuple[Tensor, Tensor | None]]:
        """What the module takes, with labels: examples, or what inference kept of them where only the head runs."""
        split, compute = predictions.split, self.settings.compute
        if self.influence.layers is not None:
            return Batches(split, self.model, compute, rows=rows.tolist())
        assert split.labels is not None
        features, labels = predictions.hidden[self.model.final_hidden], split.labels
        blocks = torch.from_numpy(rows).split(compute.batch_size)
        return ((features[block], labels[block]) for block in blocks)


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
