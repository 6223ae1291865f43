"""Folders of finished runs with contents that a test chooses, as the pipeline would have left them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from evaluation.scores import score
from experiments.files import write_json, write_npz, write_parquet, write_text
from experiments.finished import FinishedRun
from experiments.keys import key_of
from experiments.record import FITTED, _arrays
from experiments.runs import COLUMNS
from methods.contract import ModelOutputs, Slices

DEFINITION: dict[str, Any] = {
    **{name: {} for name in ("embedding", "method", "corruption")},
    "dataset": {"_target_": "nowhere.Loader"},
    "model": {"_target_": "experiments.models.resnet.ResNet"},
    "evaluation": {"score_split": "test", "fit_split": "test", "confidence": 0.95, "resamples": 100},
    "seeds": {"split": 0, "training": 0, "corruption": 0, "method": 0},
    "fingerprint": "0123456789abcdef",
    "versions": {"method": 1},
}
CONTENT: dict[str, Any] = {
    "status": "done",
    "seconds": {"discover": 1.0},
    "scale": {"name": "here", "stand_ins": []},
    "dataset_notes": [],
    "device": "cpu",
    "threads": 1,
    "git": {"commit": "abc", "dirty": False},
}


def write_run(
    root: Path,
    examples: Mapping[str, Any] | pd.DataFrame,
    members: Any,
    *,
    membership: Any = None,
    method: str = "spotlight",
    dataset: str = "fairface",
    diagnostics: Any = None,
    scores: list[dict[str, Any]] | None = None,
    opponents: Mapping[str, Any] | None = None,
    definition: Mapping[str, Any] | None = None,
    seconds: Mapping[str, float] | None = None,
    fitted: Any = None,
    truth: Any = None,
    relabelled: Mapping[str, Any] | None = None,
    refused: Mapping[str, str] | None = None,
    content: Mapping[str, Any] | None = None,
    **names: str,
) -> FinishedRun:
    """Make a finished run below a folder.

    Parameters
    ----------
    examples
        At least loss and correct, and whatever columns of `examples.parquet` the test needs.
    members
        (n, s) 0/1, the hard slices, or a mapping from problem to such arrays; so are `fitted`, of the half that the
        method was fitted on, and `truth`, the true slices.
    membership
        By default as the members.
    scores
        Tidy rows; by default what the evaluation says of these slices.
    opponents, relabelled
        The tables of these names.
    refused
        Reasons by problem, beside the others.
    definition, content
        Of `run.json`: each entry instead of, and within mappings beside, the one of every run here.
    names
        Other columns of the scores: model, variant ...
    """
    table, found = _examples(examples), _by_problem(members)
    defined = {name: _beside(DEFINITION[name], (definition or {}).get(name)) for name in DEFINITION}
    key = key_of(defined)
    folder = root / dataset.split(" ")[0].replace("/", "-") / f"{method.replace('/', '-')}-{key}"
    score_split, fit_split = (defined["evaluation"][name] for name in ("score_split", "fit_split"))
    slices = {problem: _slices(_part(table, score_split, problem), of, membership) for problem, of in found.items()}
    slices = {problem: _with(one, diagnostics) for problem, one in slices.items()}
    halves = {problem: _slices(_part(table, fit_split, problem), of) for problem, of in _by_problem(fitted).items()}
    true = {problem: torch.as_tensor(np.asarray(of)).bool() for problem, of in _by_problem(truth).items()}
    identity = {
        **dict.fromkeys(("corruption", "kind"), "none"),
        "dataset": dataset,
        "model": "resnet",
        "embedding": "final_hidden",
        "method": method,
        "variant": "",
        "run": folder.name,
        "seed": 0,
        **names,
    }
    rows = scores or [
        {"problem": problem, "group": problem, **row}
        for problem, one in slices.items()
        for row in _scores(one, _part(table, score_split, problem), true.get(problem))
    ]
    rows += [{"problem": problem, "group": problem, "metric": "refused", "value": 1.0} for problem in refused or {}]
    tidy = pd.DataFrame([{**identity, **row} for row in rows], columns=list(COLUMNS))
    write_parquet(folder / "examples.parquet", table)
    write_parquet(folder / "scores.parquet", tidy.astype(dict.fromkeys(("true_slice", "slice", "k"), "Int64")))
    write_npz(folder / "parts" / "000.npz", _arrays(slices) | _arrays(halves, FITTED))
    for name, one in {"opponents": opponents, "relabelled": relabelled, "truth": _truth(slices, true)}.items():
        if one is not None:
            write_parquet(folder / f"{name}.parquet", pd.DataFrame(one))
    told = {"seconds": dict(seconds or CONTENT["seconds"]), "refused": dict(refused or {})}
    written = {**CONTENT, **told, **(content or {}), "definition": defined}
    write_json(folder / "run.json", written)
    write_text(folder / "config.yaml", yaml.safe_dump(defined))
    return FinishedRun(folder, written)


def _beside(default: Any, given: Any) -> Any:
    return {**default, **(given or {})} if isinstance(default, dict) else given or default


def _examples(examples: Mapping[str, Any] | pd.DataFrame) -> pd.DataFrame:
    table = pd.DataFrame(examples)
    ids = [f"{i:05d}" for i in range(len(table))]
    nothing = dict.fromkeys(("label", "prediction", "path", "text"))
    defaults = {"id": ids, "split": "test", **nothing, "map_x": 0.0, "map_y": 0.0}
    return table.assign(**{name: value for name, value in defaults.items() if name not in table})


def _part(table: pd.DataFrame, split: str, problem: str) -> pd.DataFrame:
    own = table[table["problem"] == problem] if "problem" in table else table
    return own[own["split"] == split]


def _by_problem(of: Any) -> dict[str, Any]:
    if of is None:
        return {}
    return dict(of) if isinstance(of, Mapping) else {"all": of}


def _slices(examples: pd.DataFrame, members: Any, membership: Any = None) -> Slices:
    hard = torch.as_tensor(np.asarray(members)).bool()
    soft = hard.float() if membership is None else torch.as_tensor(np.asarray(membership)).float()
    return Slices(tuple(examples["id"]), soft, hard, tuple({} for _ in range(hard.shape[1])))


def _with(slices: Slices, diagnostics: Sequence[dict[str, Any]] | None) -> Slices:
    told = slices.diagnostics if diagnostics is None else tuple(diagnostics)
    return Slices(slices.example_ids, slices.membership, slices.members, told)


def _scores(slices: Slices, examples: pd.DataFrame, truth: torch.Tensor | None) -> list[dict[str, Any]]:
    outputs = ModelOutputs(
        slices.example_ids,
        embeddings=torch.zeros(len(examples), 1),
        losses=torch.tensor(examples["loss"].to_numpy(np.float32)),
        correct=torch.tensor(examples["correct"].to_numpy(bool)),
    )
    asked: dict[str, Any] = {"protocols": ["worst_slice"], "k": [10], "confidence": 0.95, "resamples": 100}
    return score(slices, outputs, truth, seed=0, **asked)


def _truth(slices: Mapping[str, Slices], truth: Mapping[str, torch.Tensor]) -> dict[str, list[Any]] | None:
    rows = [
        (problem, index, slices[problem].example_ids[row])
        for problem, of in truth.items()
        for row, index in of.nonzero().tolist()
    ]
    names = ("problem", "true_slice", "example_id")
    return {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)} if rows else None
