"""How alike training examples explain the members of slices, in the pipeline."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from experiments.audit import Audit
from experiments.contract import Problem
from experiments.corruption import make_problems
from experiments.embedding import Embedded, embed
from experiments.embeddings.influence import Influence
from experiments.explanations import Explanations, measure_coherence
from experiments.inference import forward_entries, infer
from experiments.loading import load_dataset
from experiments.record import definition_of, read_slices
from experiments.training import train_or_load
from methods.contract import ModelOutputs, Slices

ASKED = "evaluation.coherence=true"
RELABELLED = ("corruption=relabel_subclass", "corruption.n_seeds=1", "method=highest_loss")
COLUMNS = ["problem", "group", "slice", "n", "distance", "bound", "tight_bound"]


def the_folder(root="outputs"):
    (path,) = Path(root).rglob("run.json")
    return path.parent


def test_distances_are_those_of_explanations_under_the_problem_s_labels(slicebench, settings_of):
    assert slicebench("run", *RELABELLED, ASKED).exit_code == 0
    rows = pd.read_parquet(the_folder() / "coherence.parquet")
    assert list(rows.columns) == COLUMNS
    assert rows["problem"].nunique() == 10

    settings = settings_of(*RELABELLED, ASKED)
    dataset = load_dataset(settings)
    model = train_or_load(settings, dataset)
    predictions = infer(settings, dataset, model)
    problem = make_problems(settings, Audit(dataset, predictions, embed(settings, dataset, model, predictions)))[0]
    both = Influence().embed_splits(settings, dataset, model, predictions, ["train", "test"])
    members = read_slices(the_folder(), problem.name).members[:, 0]
    mu = both["test"].relabelled(problem.score.labels).double()
    explanations = mu @ both["train"].values.double().T  # (n, n')
    own = rows[rows["problem"] == problem.name].set_index("group")["distance"]
    assert own["slice"] == pytest.approx(mean_distance(explanations[members]), rel=1e-6)
    assert own["members"] == own["slice"]  # there is one slice
    assert own["split"] == pytest.approx(mean_distance(explanations), rel=1e-6)
    assert (rows["distance"] <= rows["tight_bound"]).all()
    assert (rows["tight_bound"] <= rows["bound"]).all()


def mean_distance(explanations):
    """Over ordered pairs: twice that to the mean."""
    return 2 * (explanations - explanations.mean(dim=0)).square().sum(dim=1).mean().item()


def test_infembed_is_more_coherent_than_as_many_clusters_of_the_last_layer(slicebench):
    clusters = ("method.n_clusters=25", "method.n_slices=25", "method.min_size=1", ASKED)
    means, whole = {}, []
    for method in ("infembed", "kmeans"):
        assert slicebench("run", f"method={method}", *clusters, f"paths.results={method}").exit_code == 0
        rows = pd.read_parquet(the_folder(method) / "coherence.parquet")
        slices = rows[rows["group"] == "slice"]
        assert slices["n"].sum() == 900
        means[method] = (slices["n"] * slices["distance"]).sum() / 900
        whole.append(rows.loc[rows["group"] == "split", "distance"].item())
    assert whole[0] == pytest.approx(whole[1], rel=1e-9)  # both were explained alike
    assert means["infembed"] < 0.5 * means["kmeans"] < 0.5 * whole[0]


def test_opponents_and_coherence_are_written_where_they_are_asked_for(slicebench):
    for name, asked in {"both": ["evaluation.opponents=2", ASKED], "one": [ASKED], "none": []}.items():
        assert slicebench("run", "method=highest_loss", *asked, f"paths.results={name}").exit_code == 0
    written = {name: {path.stem for path in the_folder(name).glob("*.parquet")} for name in ("both", "one", "none")}
    assert written["both"] == {"scores", "examples", "opponents", "coherence"}
    assert written["one"] == {"scores", "examples", "coherence"}
    assert written["none"] == {"scores", "examples"}
    assert "coherence.parquet" in json.loads((the_folder("one") / "run.json").read_text())["files"]


def test_keys_are_what_they_were_where_coherence_is_not_asked_for(settings_of):
    """Runs that were done before the setting was there must not be done again."""
    without, asked = settings_of(), settings_of(ASKED)
    dataset = load_dataset(without)
    assert "coherence" not in definition_of(without, dataset)["evaluation"]
    assert definition_of(asked, dataset)["evaluation"]["coherence"] is True
    models = [train_or_load(settings, dataset) for settings in (without, asked)]
    assert models[0].key == models[1].key
    before, after = (
        {(layer, entry.key) for layer, entry in forward_entries(settings, dataset, models[0], "test").items()}
        for settings in (without, asked)
    )
    assert before <= after


def test_a_slice_without_members_has_no_row(settings_of):
    ids = ("a", "b", "c")
    mu = torch.tensor([[0.0], [2.0], [5.0]])
    outputs = ModelOutputs.from_arrays(ids, embeddings=mu, losses=[0.0] * 3, correct=[True] * 3, labels=[0, 1, 1])
    audit = Audit(None, {}, {}, Explanations(("t",), torch.tensor([[3.0]]), Embedded(mu)))
    problem = Problem("p", "p", "none", outputs, outputs, audit=audit)
    members = torch.tensor([[False, True], [False, True], [False, False]])
    found = {"p": Slices(ids, members.float(), members, ({}, {}))}
    rows = measure_coherence(settings_of(ASKED), [problem], found)
    assert rows["group"].tolist() == ["split", "members", "slice"]
    assert rows["slice"].tolist() == [pd.NA, pd.NA, 1]
    assert rows["n"].tolist() == [3, 2, 2]
    # 9 (mu - mu')^2, over 9 and 4 ordered pairs
    assert rows["distance"].tolist() == pytest.approx([9 * 2 * (4 + 25 + 9) / 9, 9 * 2 * 4 / 4, 9 * 2 * 4 / 4])
    nobody = Slices(ids, members[:, :1].float(), members[:, :1], ({},))
    assert measure_coherence(settings_of(ASKED), [problem], {"p": nobody})["group"].tolist() == ["split"]
