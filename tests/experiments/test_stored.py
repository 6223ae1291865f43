"""Runs over stored problems: all that are chosen are one run, each with a model of its own, which ran elsewhere."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.reading.dcbench import INDEX, read_index
from experiments.reading.panels import read_panel
from experiments.runs import COLUMNS
from tests.experiments import test_encoder as encoders
from tests.experiments.reading import test_dcbench as writing
from tests.experiments.reading import test_problem_sets as sets

bert = encoders.bert
LAYOUTS = pytest.mark.parametrize("older", [False, True], ids=["blocks", "older"])
QUICK = ("dataset=dcbench", "method=highest_loss", "dataset.slice_size=5")


@pytest.fixture
def root(workspace, monkeypatch):
    """The folder of dcbench, empty."""
    monkeypatch.setenv("SLICEBENCH_DATA", str(workspace / "data"))
    return workspace / "data" / "dcbench"


@pytest.fixture
def three(root):
    """The folder of dcbench with three problems."""
    sets.write_problems(root)
    return root


KNOWN = """
import json
from pathlib import Path

import torch
from methods import Slices

HERE = Path(__file__).parent


class Known:
    def fit(self, outputs):
        seen = {"ids": outputs.example_ids, "embeddings": outputs.embeddings.tolist()}
        with (HERE / "fitted.jsonl").open("a") as file:
            file.write(json.dumps(seen) + "\\n")
        return self

    def predict(self, outputs):
        known = json.loads((HERE / "known.json").read_text())
        membership = torch.tensor([known.get(one, [0.0]) for one in outputs.example_ids])
        return Slices(outputs.example_ids, membership, membership > 0.5)
"""


@pytest.fixture
def known(slicebench, workspace, monkeypatch):
    """Run a method that gives slices which the test knows (memberships by example), and notes what it is fitted on."""
    (workspace / "known_slices.py").write_text(KNOWN)

    def run(*overrides, memberships=()):
        monkeypatch.delitem(sys.modules, "known_slices", raising=False)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        (workspace / "known.json").write_text(json.dumps(dict(memberships)))
        (workspace / "fitted.jsonl").unlink(missing_ok=True)
        method = ("--import-path", ".", "method=custom", "method._target_=known_slices.Known")
        done = slicebench("run", *method, "dataset=dcbench", *overrides)
        assert done.exit_code == 0, done.stderr
        return the_run()

    return run


def fitted():
    """What the method was fitted on, problem by problem."""
    return [json.loads(line) for line in Path("fitted.jsonl").read_text().splitlines()]


def the_run(below="outputs"):
    (folder,) = [path.parent for path in Path(below).rglob("run.json")]
    return folder


def content(folder):
    return json.loads((folder / "run.json").read_text())


def table(folder, name="scores"):
    return pd.read_parquet(folder / f"{name}.parquet")


def explained(done):
    """The one line of a command that was refused."""
    assert done.exit_code == 2, done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("slicebench: ")]
    assert "Traceback" not in done.output
    return line


# Forty test examples each. Of the slices that are found: their examples, the surest first; the first thirty of a slice
# are its members. What a slice does not name has membership 0.
FOUND = {
    "a": [[*range(5), *range(10, 25)], [*range(10, 20), *range(10)], [30, 31, 5, 32, 33, 34, 35]],
    "b": [[*range(10, 40), *range(10)]],
    "c": [[*range(10)]],
}
TRUE = {"a": {"tens": range(10), "thirties": range(30, 36)}, "b": {"b": range(10)}, "c": {"c": range(10)}}
KINDS = {"a": "correlation", "b": "rare", "c": "rare"}
WRONG = (5, *range(30, 36))  # where the model errs: the third slice of a has the largest losses


def memberships():
    """By the ids of the examples, one for each slice."""
    return {
        f"{problem}t{row:02d}": [1 - order.index(row) / 60 if row in order else 0.0 for order in slices]
        for problem, slices in FOUND.items()
        for row in range(40)
    }


def columns_by_hand(problem):
    """A model that is sure of everything and errs on `WRONG`."""
    ids = {"val": [f"{problem}v{i:02d}" for i in range(30)], "test": [f"{problem}t{i:02d}" for i in range(40)]}
    slices = np.array([[row in rows for rows in TRUE[problem].values()] for row in range(40)])
    class_1 = {name: np.array([0.1 if row in WRONG else 0.9 for row in range(len(of))]) for name, of in ids.items()}
    predictions = {
        f"{name}_predictions": {
            "id": np.array(of),
            "target": np.ones(len(of), dtype=np.int64),
            "probs": np.stack([1 - class_1[name], class_1[name]], axis=1),
        }
        for name, of in ids.items()
    }
    everything = np.array(ids["test"] + ids["val"])
    activations = {"id": everything, "act": np.arange(140, dtype=np.float32).reshape(70, 2)}
    slices_of = {"id": np.array(ids["test"]), "slices": slices.astype(np.int64)}
    return {**predictions, "activations": activations, "test_slices": slices_of}


def write_by_hand(root, older=False):
    entries = []
    for number, problem in enumerate(FOUND, start=1):
        for name, columns in columns_by_hand(problem).items():
            writing.write_panel(sets.panel(root, problem, name), columns, older)
        entries.append(sets.entry(f"p_{number}", KINDS[problem], "celeba", problem, slice_names=list(TRUE[problem])))
    sets.write_index(root, *entries)


# by problem, true slice and discovered slice (-1: the complement of the first), computed by hand
METRICS = (
    *(("precision_at_k", 10), ("precision_at_k", 25), ("recall_at_k", 10), ("recall_at_k", 25)),
    *((name, None) for name in ("average_precision", "auroc", "precision", "recall", "f1")),
)
PERFECT = (1, 10 / 25, 1, 1, 1, 1, 1, 1, 1)
VALUES = {
    # five of ten come first; the other five are among the twenty that are not in the slice
    ("p_1", 0, 0): (
        5 / 10,
        5 / 25,
        5 / 10,
        5 / 10,
        0.5 + 0.5 * 10 / 40,
        (5 * 30 + 5 * 15 / 2) / 300,
        1 / 4,
        1 / 2,
        1 / 3,
    ),
    # ten others, then all ten
    ("p_1", 0, 1): (0, 10 / 25, 0, 1, sum(i / (10 + i) for i in range(1, 11)) / 10, 20 / 30, 1 / 2, 1, 2 / 3),
    # one, at the third place of seven
    ("p_1", 0, 2): (1 / 10, 1 / 25, 1 / 10, 1 / 10, 0.1 / 3 + 0.9 / 4, (28 + 9 * 24 / 2) / 300, 1 / 7, 1 / 10, 2 / 17),
    # none of the six, which are among the twenty that are not in the slice
    ("p_1", 1, 0): (0, 0, 0, 0, 6 / 40, 7 / 34, 0, 0, 0),
    # all six, at the places 1, 2, 4, 5, 6, 7
    ("p_1", 1, 2): (
        *(6 / 10, 6 / 25, 1, 1, (2 + 3 / 4 + 4 / 5 + 5 / 6 + 6 / 7) / 6, (2 * 34 + 4 * 33) / (6 * 34)),
        *(6 / 7, 1, 12 / 13),
    ),
    # the last ten of forty
    ("p_2", 0, 0): (0, 0, 0, 0, sum(i / (30 + i) for i in range(1, 11)) / 10, 0, 0, 0, 0),
    ("p_2", 0, -1): PERFECT,
    ("p_3", 0, 0): PERFECT,
}
CHOSEN = {
    "first": {("p_1", 0): 0, ("p_1", 1): 0, ("p_2", 0): 0, ("p_3", 0): 0},
    "worst_slice": {("p_1", 0): 2, ("p_1", 1): 2, ("p_2", 0): 0, ("p_3", 0): 0},
    "best_auroc": {("p_1", 0): 1, ("p_1", 1): 2, ("p_2", 0): 0, ("p_3", 0): 0},
    "best_average_precision": {("p_1", 0): 0, ("p_1", 1): 2, ("p_2", 0): -1, ("p_3", 0): 0},
}


@LAYOUTS
def test_every_protocol_has_the_values_computed_by_hand(root, known, older):
    write_by_hand(root, older)
    scores = table(known(memberships=memberships()))
    rows = scores[scores["protocol"].isin(list(CHOSEN))]
    found = {
        (protocol, problem, int(true_slice), int(slice_), metric, None if pd.isna(k) else int(k)): value
        for protocol, problem, true_slice, slice_, metric, k, value in rows[
            ["protocol", "problem", "true_slice", "slice", "metric", "k", "value"]
        ].itertuples(index=False)
    }
    expected = {
        (protocol, problem, true_slice, slice_, *metric): value
        for protocol, matches in CHOSEN.items()
        for (problem, true_slice), slice_ in matches.items()
        for metric, value in zip(METRICS, VALUES[problem, true_slice, slice_], strict=True)
    }
    assert len(found) == len(rows)
    assert found == pytest.approx(expected, abs=1e-9)


def test_what_is_discovered_and_what_is_false_is_counted(root, known):
    write_by_hand(root)
    scores = table(known(memberships=memberships())).query("protocol == 'spotcheck'")
    rate = scores.query("metric == 'discovery_rate'").set_index(["problem", "true_slice"])["value"]
    # in the third slice of the first problem six of seven members are in its second true slice, and all of that
    assert rate.to_dict() == {("p_1", 0): 0, ("p_1", 1): 1, ("p_2", 0): 0, ("p_3", 0): 1}
    false = scores.query("metric == 'false_discovery_rate'").set_index("problem")["value"]
    assert false.to_dict() == pytest.approx({"p_1": 2 / 3, "p_2": 1, "p_3": 0})


def test_tables_of_kinds_are_apart(root, known, slicebench):
    write_by_hand(root)
    known(memberships=memberships())
    done = slicebench("collect", "outputs")
    assert done.exit_code == 0, done.stderr
    markdown = Path("outputs/collected/leaderboard.md").read_text()
    titles = [line for line in markdown.splitlines() if line.startswith("## ")]
    start = "## dcbench, precomputed, final_hidden"
    assert titles == [f"{start}, {kind}, protocol worst_slice" for kind in ("correlation", "rare")]
    board = pd.read_csv("outputs/collected/leaderboard.csv")
    row = board.query("protocol == 'worst_slice' and metric == 'precision_at_k' and k == 10").set_index("kind")
    # the mean over the true slices of a problem, then over the problems of a kind
    assert row["mean"].to_dict() == pytest.approx({"correlation": (0.1 + 0.6) / 2, "rare": (0 + 1) / 2})
    assert row["n_problems"].to_dict() == {"correlation": 1, "rare": 2}
    assert row["n_groups"].to_dict() == {"correlation": 1, "rare": 2}


@LAYOUTS
def test_all_problems_are_one_run_each_with_its_kind_and_group(root, slicebench, older):
    sets.write_problems(root, older)
    done = slicebench("run", *QUICK)
    assert done.exit_code == 0, done.stderr
    folder = the_run()
    assert folder.parent.name == "dcbench"
    assert content(folder)["status"] == "done"
    scores = table(folder)
    assert tuple(scores.columns) == COLUMNS
    said = scores[["problem", "kind", "group"]].drop_duplicates().to_numpy().tolist()
    names = "smiling=0_male=1, smiling=1_male=0"
    assert said == [
        ["p_1", "correlation", f"celeba {names}"],
        ["p_2", "rare", f"imagenet {names}"],
        ["p_3", "rare", f"celeba {names}"],
    ]
    assert scores.groupby("problem").size().nunique() == 1
    assert set(scores["protocol"].dropna()) == {*CHOSEN, "spotcheck"}
    ks = scores[scores["metric"].isin(["precision_at_k", "recall_at_k"])].groupby("metric")["k"].unique()
    assert {metric: list(of) for metric, of in ks.items()} == {"precision_at_k": [10, 25], "recall_at_k": [10, 25]}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("dataset.problem=p_2", {"p_2"}),
        ("dataset.problem=[p_3,p_1]", {"p_1", "p_3"}),
        ("dataset.kind=rare", {"p_2", "p_3"}),
        ("dataset.kind=[rare,correlation]", {"p_1", "p_2", "p_3"}),
        ("dataset.dataset=celeba", {"p_1", "p_3"}),
    ],
)
def test_the_problems_of_a_choice_are_one_run(three, slicebench, choice, expected):
    done = slicebench("run", *QUICK, choice)
    assert done.exit_code == 0, done.stderr
    assert set(table(the_run())["problem"]) == expected


def test_choices_can_be_swept_over(three, slicebench):
    done = slicebench("run", "--multirun", *QUICK, "dataset.kind=rare,correlation")
    assert done.exit_code == 0, done.stderr
    found = [set(table(path.parent)["kind"]) for path in Path("outputs").rglob("run.json")]
    assert sorted(found, key=sorted) == [{"correlation"}, {"rare"}]


def test_methods_are_fitted_on_validation_and_scored_on_test(three, known):
    folder = known()
    assert [one["ids"] for one in fitted()] == [[f"v{i:02d}" for i in range(30)]] * 3
    with np.load(folder / "parts" / "000.npz") as arrays:
        assert arrays["p_2/example_ids"].tolist() == [f"t{i:02d}" for i in range(40)]


def test_methods_may_be_fitted_on_the_split_that_is_scored(three, known):
    folder = known("evaluation.fit_split=test")
    assert [one["ids"] for one in fitted()] == [[f"t{i:02d}" for i in range(40)]] * 3
    assert set(table(folder, "examples")["split"]) == {"test"}


@pytest.mark.parametrize(("embedding", "column"), [("activations", "act"), ("clip", "emb")])
def test_methods_get_the_embedding_that_is_asked_for(three, known, embedding, column):
    known(f"dataset.embedding={embedding}")
    written = writing.made_columns()[embedding]
    rows = [written["id"].tolist().index(f"v{i:02d}") for i in range(30)]
    expected = written[column][rows].astype(np.float32)
    assert np.array_equal(np.array(fitted()[1]["embeddings"], dtype=np.float32), expected)


REFUSED = {
    "evaluation.score_split=validation": "take evaluation.score_split=test",
    "model=small_cnn": "outputs of models that ran elsewhere, and no examples for small_cnn: take model=precomputed",
    "model=resnet": "take model=precomputed",
    "corruption=relabel_subclass": "have true slices already: take corruption=none",
    "embedding=influence": "which not all problems of dcbench have: they have validation and test; take "
    "embedding.hessian_split=validation",
    "evaluation.fit_split=train": "evaluation.fit_split needs the train split, which not all problems of dcbench have",
    "dataset.problem=p_11": "'p_11'; the nearest is p_1",
    "dataset.problem=[p_1,q_2]": "'q_2'; the nearest is p_2",
    "dataset.kind=rear": "dataset.kind is 'rear', expected rare or correlation or noisy_label",
    "dataset.kind=noisy_label": "'noisy_label' (all: correlation, rare)",
    "dataset.dataset=celebs": "'celebs'; the nearest is celeba",
    "dataset.embedding=clop": "dataset.embedding is 'clop', expected activations or clip",
    "dataset.folder=elsewhere": "elsewhere/slice_discovery/problems.yaml is missing. Get ",
    "dataset.knd=rare": "there is no setting 'dataset.knd'; the nearest",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_stored_problems_cannot_give_is_refused_before_anything_is_computed(three, slicebench, override):
    for dry_run in ([], ["--dry-run"]):
        line = explained(slicebench("run", *QUICK, override, *dry_run))
        assert REFUSED[override] in line
    assert not list(Path("outputs").rglob("*"))


def test_a_choice_of_nothing_is_refused(three, slicebench):
    assert "dataset.kind" in explained(slicebench("run", *QUICK, "dataset.kind=[]"))


def test_the_advice_on_a_missing_split_is_about_the_setting_that_asks_for_it(three, slicebench):
    line = explained(slicebench("run", *QUICK, "evaluation.fit_split=train"))
    assert "hessian" not in line
    line = explained(slicebench("run", *QUICK, "evaluation.opponents=3"))
    assert "take evaluation.opponents=0, or embedding=influence" in line
    line = explained(slicebench("run", *QUICK, "evaluation.coherence=true"))
    assert "take evaluation.coherence=false, or embedding=influence" in line


def test_a_layer_that_stored_outputs_have_not_is_refused(three, slicebench):
    line = explained(slicebench("run", *QUICK, "embedding=layer", "embedding.layer=embeding"))
    assert "no layer 'embeding'; the nearest are embedding" in line
    line = explained(
        slicebench("run", *QUICK, "embedding=influence", "embedding.hessian_split=validation", "embedding.layers=[fc]")
    )
    assert "no layer 'fc'; the nearest are embedding" in line


def test_an_encoder_has_nothing_to_encode(three, slicebench, bert):
    line = explained(slicebench("run", *QUICK, "embedding=encoder", f"embedding.name={bert}"))
    assert "dcbench has no examples that an encoder could take" in line


def test_activations_that_logits_are_no_linear_map_of_have_no_influence_embeddings(three, slicebench):
    line = explained(slicebench("run", *QUICK, "embedding=influence", "embedding.hessian_split=validation"))
    assert "not the input of a final linear layer" in line
    assert "p_1" in line
    assert "embedding.layers" not in line  # there is no model whose layers could be named


N_CLASSES, WIDTH = 3, 4


def linear_outputs(seed=1):
    """Activations, the logits that a linear layer makes of them, and labels."""
    generator = np.random.default_rng(seed)
    activations = generator.normal(size=(70, WIDTH)).astype(np.float32)
    logits = activations @ generator.normal(size=(WIDTH, N_CLASSES)) + generator.normal(size=N_CLASSES)
    return activations, logits, generator.integers(N_CLASSES, size=70)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def write_linear(root, seeds=(1,)):
    """Problems of which the probabilities are stored, and the logits only up to one number a row."""
    ids = np.array([*(f"v{i:02d}" for i in range(30)), *(f"t{i:02d}" for i in range(40))])
    for seed in seeds:
        activations, logits, labels = linear_outputs(seed)
        columns = {"id": ids, "target": labels, "probs": softmax(logits).astype(np.float32)}
        predictions = {
            name: {column: values[rows] for column, values in columns.items()}
            for name, rows in (("val_predictions", slice(0, 30)), ("test_predictions", slice(30, 70)))
        }
        sets.write_panels(root, f"p_{seed}", activations={"id": ids, "act": activations}, **predictions)
    sets.write_index(root, *(sets.entry(f"p_{seed}", "rare", "celeba") for seed in seeds))


INFLUENCE = (
    "embedding=influence",
    "embedding.hessian_split=validation",
    "embedding.krylov_dim=40",
    "embedding.rank=20",
)


def influence_by_hand(seed=1):
    """Of all examples on each other, shape (70, 70): G H^-1 G' with all gradients written out, H of validation."""
    activations, logits, labels = linear_outputs(seed)
    inputs = np.concatenate([activations, np.ones((70, 1))], axis=1)  # (n, d + 1)
    probabilities = softmax(logits)  # (n, c)
    gradients = np.einsum("nc,nd->ncd", probabilities - np.eye(N_CLASSES)[labels], inputs).reshape(70, -1)
    curvature = [np.diag(p) - np.outer(p, p) for p in probabilities[:30]]
    hessian = sum(np.kron(c, np.outer(x, x)) for c, x in zip(curvature, inputs[:30], strict=True))
    return gradients @ np.linalg.pinv(hessian, rcond=1e-9, hermitian=True) @ gradients.T


def test_influence_on_stored_probabilities_is_influence_on_the_logits(root, known):
    seeds = (1, 2)  # each problem has a model of its own
    write_linear(root, seeds)
    known(*INFLUENCE)
    for seed, seen in zip(seeds, fitted(), strict=True):
        embeddings, expected = np.array(seen["embeddings"]), influence_by_hand(seed)[:30, :30]
        assert embeddings.shape == (30, (N_CLASSES - 1) * (WIDTH + 1))  # one number a row counts for nothing
        assert np.linalg.norm(embeddings @ embeddings.T - expected) < 1e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize("per_part", [1, 25])
def test_a_problem_without_what_the_embedding_needs_is_refused_and_the_others_are_scored(root, slicebench, per_part):
    write_linear(root, (1, 2, 3))
    sets.write_panels(root, "p_2")  # activations that its probabilities have nothing to do with
    run = (*QUICK, *INFLUENCE, f"compute.problems_per_part={per_part}")
    assert slicebench("run", *run).exit_code == 0
    rows = table(the_run())
    assert set(rows.query("metric == 'refused'")["problem"]) == {"p_2"}
    assert (rows.query("problem == 'p_2'")["kind"] == "rare").all()
    assert set(rows.query("metric == 'precision_at_k'")["problem"]) == {"p_1", "p_3"}
    assert "not the input of a final linear layer" in content(the_run())["refused"]["p_2"]
    assert set(table(the_run(), "examples")["problem"]) == {"p_1", "p_3"}
    assert "skipped" in slicebench("run", *run).stderr
    assert "refused 1" in slicebench("collect", "outputs").stdout


def test_a_run_says_how_the_influence_embeddings_of_each_problem_were_made(root, known):
    write_linear(root)
    said = content(known(*INFLUENCE))["notes_of_problems"]["p_1"]["embedding"]["test"]
    assert said["hessian_examples"] == 30
    assert len(said["eigenvalues"]) == (N_CLASSES - 1) * (WIDTH + 1)


def test_opponents_of_a_stored_problem_are_its_own(root, known):
    write_linear(root)
    opponents = ("evaluation.opponents=2", "evaluation.opponents_from=validation")
    rows = table(known(*INFLUENCE, *opponents, memberships={"t03": [1.0], "t07": [0.9]}), "opponents")
    influence = influence_by_hand()[:30, [33, 37]].sum(axis=1)
    order = np.argsort(influence)
    assert set(rows["problem"]) == {"p_1"}
    for sign, expected in ((1, order[::-1][:2]), (-1, order[:2])):
        found = rows[rows["sign"] == sign].sort_values("rank")
        assert found["example_id"].tolist() == [f"v{row:02d}" for row in expected]
        assert found["influence"].tolist() == pytest.approx(influence[expected].tolist(), rel=1e-3)


EXAMPLES = (
    *("problem", "id", "split", "label", "prediction", "loss", "correct", "path", "text", "attribute_true_slice"),
    *("map_x", "map_y"),
)


@LAYOUTS
def test_every_example_of_every_problem_has_a_row(root, slicebench, older):
    sets.write_problems(root, older)
    assert slicebench("run", *QUICK).exit_code == 0
    examples = table(the_run(), "examples")
    assert tuple(examples.columns) == EXAMPLES
    counts = examples.groupby(["problem", "split"]).size().to_dict()
    assert counts == {
        (problem, split): n for problem in sets.PROBLEMS for split, n in (("validation", 30), ("test", 40))
    }
    written = writing.made_columns()["test_predictions"]
    one = examples.query("problem == 'p_2' and split == 'test'").set_index("id").loc[written["id"]]
    losses = -np.log(written["probs"][np.arange(40), written["target"]])
    assert one["loss"].tolist() == pytest.approx(losses.tolist(), rel=1e-4)
    names = np.array(["not smiling", "smiling"])
    assert one["label"].tolist() == names[written["target"]].tolist()
    assert one["prediction"].tolist() == names[written["probs"].argmax(axis=1)].tolist()
    assert one["correct"].tolist() == (one["label"] == one["prediction"]).tolist()
    assert one["path"].isna().all()
    slices = one["attribute_true_slice"]
    assert (slices["t00"], slices["t04"], slices["t01"]) == (
        "smiling=0_male=1; smiling=1_male=0",
        "smiling=0_male=1",
        "",
    )
    assert set(examples.query("split == 'validation'")["attribute_true_slice"]) == {""}


@pytest.mark.parametrize("method", ["highest_loss", "kmeans", "spotlight", "random"])
def test_how_problems_are_cut_into_parts_does_not_matter(three, slicebench, method):
    overrides = ("dataset=dcbench", f"method={method}", "dataset.slice_size=5", "dataset.n_components=3")
    for n in (1, 2, 25):
        done = slicebench("run", *overrides, f"compute.problems_per_part={n}", f"paths.results=by_{n}")
        assert done.exit_code == 0, done.stderr
        assert len(list(the_run(f"by_{n}").glob("parts/*.parquet"))) == -(-3 // n)
    for name in ("scores", "examples"):
        expected = table(the_run("by_25"), name)
        for n in (1, 2):
            pd.testing.assert_frame_equal(table(the_run(f"by_{n}"), name), expected, check_exact=True)


@pytest.mark.parametrize("problem", ["p_1", "p_2", "p_3"])
def test_the_paths_of_some_problems_may_be_known(three, slicebench, problem):
    paths = np.array([f"photos/{one}.jpg" for one in writing.made_columns()["test_predictions"]["id"]])
    sets.write_panels(three, problem, test_predictions={"path": paths})
    tables = []
    for n in (1, 25):
        done = slicebench("run", *QUICK, f"compute.problems_per_part={n}", f"paths.results=by_{n}")
        assert done.exit_code == 0, done.stderr
        tables.append(table(the_run(f"by_{n}"), "examples"))
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    have = tables[0].dropna(subset="path")
    assert set(have["problem"]) == {problem}
    assert have["path"].tolist() == [f"photos/{one}.jpg" for one in have["id"]]
    assert len(have) == 40


SLOW = """
import os, time
from methods import HighestLoss

class Slow(HighestLoss):
    def fit(self, outputs):
        time.sleep(float(os.environ.get("SECONDS", 0)))
        return super().fit(outputs)
"""


def started(workspace, *arguments):
    """The run in a process of its own, which is slow."""
    command = [sys.executable, "-m", "experiments.cli", "run", "tracking=none", "compute.threads=1", *arguments]
    environment = os.environ | {"SECONDS": "0.15"}
    return subprocess.Popen(command, cwd=workspace, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def write_incomplete(root):
    """Eight problems: of the first, an example does not join; the last is missing."""
    sets.write_panels(root, "p_1", activations=writing.renamed("activations", 1))
    sets.write_panels(root, "p_2")
    panels = ["p_1", *["p_2"] * 6, "nowhere"]
    sets.write_index(root, *(sets.entry(f"p_{i}", "rare", "celeba", of) for i, of in enumerate(panels, start=1)))


def test_a_run_that_was_killed_between_parts_ends_as_one_that_was_not(root, workspace, slicebench):
    write_incomplete(root)
    (workspace / "slow_stored.py").write_text(SLOW)
    run = ("--import-path", ".", "method=custom", "method._target_=slow_stored.Slow", "+method.size=5")
    run += ("dataset=dcbench", "dataset.partial=true", "compute.problems_per_part=1")
    killed = started(workspace, *run, "paths.results=killed")
    wait_for(lambda: len(list((workspace / "killed").rglob("parts/*.parquet"))) >= 2)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=10)
    folder = the_run(workspace / "killed")
    before = {path: path.stat().st_mtime_ns for path in folder.glob("parts/0*.*")}
    n_parts = len([path for path in before if path.suffix == ".parquet"])
    assert 2 <= n_parts < 7

    for where in ("killed", "undisturbed"):
        done = slicebench("run", *run, f"paths.results={where}")
        assert done.exit_code == 0, done.output
    kept = [path for path in before if path.with_suffix(".parquet") in before]
    assert [path for path in kept if path.stat().st_mtime_ns != before[path]] == [], "a finished part was done again"
    expected = the_run(workspace / "undisturbed")
    for name in ("scores", "examples"):
        pd.testing.assert_frame_equal(table(folder, name), table(expected, name), check_exact=True)
    for path in sorted(folder.glob("parts/*.npz")):
        with np.load(path) as ours, np.load(expected / "parts" / path.name) as theirs:
            assert set(ours) == set(theirs)
            assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    for key in ("status", "files", "dataset_notes", "notes_of_problems", "refused"):
        assert content(folder)[key] == content(expected)[key]
    assert list(content(folder)["notes_of_problems"]) == ["p_1"]


def test_a_run_keeps_what_a_reader_must_know_of_its_problems(root, slicebench):
    write_incomplete(root)
    done = slicebench("run", *QUICK, "dataset.partial=true")
    assert done.exit_code == 0, done.stderr
    kept = content(the_run())
    (note,) = kept["dataset_notes"]
    assert note.startswith("1 of 8 problems of dcbench are missing")
    assert note.endswith("p_8 the first: left out")
    assert f"dcbench: {note}" in done.stderr
    assert list(kept["notes_of_problems"]) == ["p_1"]
    (note,) = kept["notes_of_problems"]["p_1"]["notes"]
    assert note.startswith("1 of the 40 ids of ")
    assert "do not join and are left out" in note
    assert (table(the_run(), "examples").query("split == 'test'").groupby("problem").size() == [39] + [40] * 6).all()


@pytest.mark.parametrize("also", [[], ["parts/000.examples"], ["parts/001.examples"]])
def test_examples_that_were_lost_come_back(three, slicebench, also):
    assert slicebench("run", *QUICK, "compute.problems_per_part=2").exit_code == 0
    folder = the_run()
    expected = table(folder, "examples")
    for lost in ("examples.parquet", *also):
        (folder / lost).unlink()
    assert slicebench("run", *QUICK).exit_code == 0
    pd.testing.assert_frame_equal(table(folder, "examples"), expected, check_exact=True)


def test_many_missing_problems_must_be_asked_for(root, slicebench):
    sets.write_many(root, 19, 1)
    line = explained(slicebench("run", *QUICK))
    assert "1 of 19 problems of dcbench are missing" in line
    assert "dataset.partial=true" in line
    assert slicebench("run", *QUICK, "dataset.partial=true").exit_code == 0
    assert table(the_run())["problem"].nunique() == 18


def test_few_missing_problems_are_left_out_with_a_note(root, slicebench):
    sets.write_many(root, 20, 1)
    done = slicebench("run", *QUICK)
    assert done.exit_code == 0, done.stderr
    assert "1 of 20 problems of dcbench are missing" in done.stderr
    assert table(the_run())["problem"].nunique() == 19


def test_where_no_problem_is_there_it_is_said_how_to_get_them(root, slicebench):
    sets.write_many(root, 3, 3)
    line = explained(slicebench("run", *QUICK))
    assert "3 of 3 problems of dcbench are missing" in line
    assert "slicebench fetch dcbench" in line or "https://" in line


def checked(slicebench, *arguments):
    """State, rows and note of dcbench, and the exit code."""
    done = slicebench("check", "--json", "dataset=dcbench", *arguments)
    (line,) = json.loads(done.stdout)
    return line["state"], line["rows"], line["note"], done.exit_code


def test_check_counts_the_problems_of_each_kind(three, slicebench):
    state, rows, note, code = checked(slicebench)
    assert (state, rows, code) == ("found", {"correlation problems": 1, "rare problems": 2}, 0)
    assert note == "1 correlation problems, 2 rare problems"
    assert checked(slicebench, "dataset.kind=rare")[1] == {"rare problems": 2}
    assert checked(slicebench, "dataset.problem=[p_1,p_3]")[1] == {"correlation problems": 1, "rare problems": 1}


def test_check_says_that_nothing_is_there_and_how_to_get_it(root, slicebench):
    state, rows, note, code = checked(slicebench)
    assert (state, rows, code) == ("absent", {}, 1)
    assert "problems.yaml is missing" in note
    assert "Or: slicebench fetch dcbench" in note


def test_check_says_that_all_problems_are_missing_and_how_to_get_them(root, slicebench):
    sets.write_many(root, 3, 3)
    state, rows, note, code = checked(slicebench)
    assert (state, rows, code) == ("partial", {}, 1)
    assert "3 of 3 problems of dcbench are missing" in note
    assert "Or: slicebench fetch dcbench" in note


def test_check_counts_what_is_there_of_an_incomplete_set(root, slicebench):
    sets.write_many(root, 19, 1)
    state, rows, note, code = checked(slicebench)
    assert (state, rows, code) == ("partial", {"rare problems": 18}, 1)
    assert note.startswith("18 rare problems; 1 of 19 problems of dcbench are missing")
    assert note.count("dataset.partial=true") == 1
    state, rows, note, code = checked(slicebench, "dataset.partial=true")
    assert (state, rows, code) == ("found", {"rare problems": 18}, 0)
    assert note.endswith("p_19 the first: left out")


@pytest.mark.parametrize("text", ["- !!python/object/apply:os.mkdir ['planted']\n", "- [\n", "a: 1\n"])
def test_check_says_that_the_index_is_damaged(three, slicebench, workspace, text):
    (three / INDEX).write_text(text)
    state, rows, note, code = checked(slicebench)
    assert (state, rows, code) == ("damaged", {}, 1)
    assert "problems.yaml" in note
    assert not (workspace / "planted").exists()


def test_check_takes_a_choice_of_what_is_not_there_for_a_mistake(three, slicebench):
    for choice in ("dataset.problem=p_11", "dataset.kind=rear", "dataset.kind=noisy_label", "dataset.knd=rare"):
        explained(slicebench("check", "dataset=dcbench", choice))


def test_another_content_is_another_run(three, slicebench):
    assert slicebench("run", *QUICK).exit_code == 0
    assert "skipped" in slicebench("run", *QUICK).stderr
    sets.rewritten(three, "p_3", "activations")
    assert "skipped" not in slicebench("run", *QUICK).stderr
    assert len(list(Path("outputs").rglob("run.json"))) == 2


def test_pickles_are_never_opened_and_are_no_part_of_a_run(three, slicebench, workspace):
    assert slicebench("run", *QUICK).exit_code == 0
    code = pickle.dumps(writing.Plant(workspace / "planted"))
    for path in three.rglob("*.mk"):
        (path / "state.dill").write_bytes(code)
    (three / sets.ARTIFACTS / "p_1" / "model.pt").write_bytes(code)
    assert "skipped" in slicebench("run", *QUICK).stderr
    assert slicebench("run", *QUICK, "dataset.slice_size=6").exit_code == 0  # reads all of it
    assert checked(slicebench)[0] == "found"
    assert not (workspace / "planted").exists()


def test_a_file_of_a_panel_that_is_missing_fails_the_run(three, slicebench):
    next(sets.panel(three, "p_2", "activations").rglob("data.pt")).unlink()
    assert f"{sets.ARTIFACTS}/p_2/activations.mk" in explained(slicebench("run", *QUICK))
    assert content(the_run())["status"] == "failed"


BROKEN = {
    "not_finite": {"test_predictions": {"probs": np.full((40, 2), np.nan)}},
    "other_length": {"test_slices": {n: v[:20] for n, v in writing.made_columns()["test_slices"].items()}},
    "example_in_two_splits": {"val_predictions": {"id": np.array([f"t{i:02d}" for i in range(30)])}},
    "slice_without_members": {"test_slices": {"slices": np.zeros((40, 2))}},
    "slice_of_all": {"test_slices": {"slices": np.ones((40, 2))}},
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_problem_that_is_broken_fails_the_run_and_is_named(root, slicebench, broken):
    sets.write_panels(root, "good")
    sets.write_panels(root, "bad", **BROKEN[broken])
    sets.write_index(root, *(sets.entry(f"p_{i}", "rare", "celeba", of) for i, of in ((1, "good"), (2, "bad"))))
    line = explained(slicebench("run", *QUICK, "compute.problems_per_part=1"))
    assert "p_2" in line or "artifacts/bad/" in line
    kept = content(the_run())
    assert kept["status"] == "failed"
    assert kept["error"].endswith(line.removeprefix("slicebench: "))
    assert [path.name for path in the_run().glob("parts/*.parquet")] == ["000.parquet"]

    sets.write_panels(root, "bad")
    assert slicebench("run", *QUICK).exit_code == 0


def test_a_problem_that_a_method_refuses_is_counted_and_the_others_are_scored(root, slicebench):
    sets.write_panels(root, "p_1")
    few = {name: values[:8] for name, values in writing.made_columns()["val_predictions"].items()}
    sets.write_panels(root, "p_2", val_predictions=few)
    sets.write_index(root, *(sets.entry(f"p_{i}", "rare", "celeba") for i in (1, 2)))
    done = slicebench("run", "dataset=dcbench", "method=kmeans", "method.n_clusters=10")
    assert done.exit_code == 0, done.stderr
    assert list(content(the_run())["refused"]) == ["p_2"]
    assert table(the_run()).query("problem == 'p_2'")["metric"].tolist() == ["refused"]
    assert set(table(the_run(), "examples")["problem"]) == {"p_1", "p_2"}


def written_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_dry_run_computes_and_writes_nothing(three, own_cache, slicebench, workspace):
    before = written_below(workspace)
    done = slicebench("run", *QUICK, "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert "discover and score" in done.stdout
    assert done.stdout.count("to compute") == 1
    assert done.stdout.rstrip().endswith(": 0.0 MB")
    new = set(written_below(workspace)) - set(before)
    assert [path for path in new if not path.startswith("cache/fingerprints/")] == []
    assert slicebench("run", *QUICK).exit_code == 0
    assert "done: would be skipped" in slicebench("run", *QUICK, "--dry-run").stdout


def test_a_run_over_stored_problems_caches_no_outputs(three, own_cache, slicebench):
    assert slicebench("run", *QUICK).exit_code == 0
    assert [path.name for path in own_cache.iterdir()] == ["fingerprints"]


@pytest.fixture
def predictions(workspace):
    """A file of the user's with predictions; gives the overrides of a run over them."""
    generator = np.random.default_rng(0)
    arrays = {"embeddings": generator.normal(size=(60, 3)), "labels": np.arange(60) % 2}
    np.savez(workspace / "mine.npz", logits=generator.normal(size=(60, 2)), **arrays)
    return ("dataset=predictions", "dataset.path=mine.npz", "model=precomputed", "method=highest_loss", "method.size=5")


def test_a_dry_run_over_predictions_computes_and_writes_nothing(predictions, own_cache, slicebench, workspace):
    done = slicebench("run", *predictions, "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert "infer" not in done.stdout
    assert "disk needed" in done.stdout
    assert written_below(workspace) == ["mine.npz"]


def test_a_run_over_predictions_caches_no_copy_of_them(predictions, own_cache, slicebench):
    done = slicebench("run", *predictions)
    assert done.exit_code == 0, done.stderr
    assert table(the_run()).query("metric == 'size'")["value"].tolist() == [5]
    examples = table(the_run(), "examples")
    assert tuple(examples.columns) == tuple(n for n in EXAMPLES if n not in ("problem", "attribute_true_slice"))
    assert len(examples) == 60
    assert "notes_of_problems" not in content(the_run())
    assert not (own_cache / "forward").exists()


def by_loss(root, entry):
    """Of a problem on disk: for each test example by falling loss, whether it is in each true slice, shape (n, g)."""
    panels = {name: read_panel(root / f"{entry.artifacts[name]}.mk") for name in ("test_predictions", "test_slices")}
    predictions, slices = panels["test_predictions"].columns, panels["test_slices"].columns
    chances = predictions["probs"][np.arange(len(predictions["id"])), predictions["target"]]
    rows = {one: row for row, one in enumerate(slices["id"])}
    return np.array([slices["slices"][rows[one]] for one in predictions["id"][np.argsort(chances, kind="stable")]])


def test_the_real_problems_are_one_run(data, slicebench):
    root = data("dcbench") / "dcbench"
    done = slicebench("run", "dataset=dcbench", "method=highest_loss")
    assert done.exit_code == 0, done.stderr
    scores = table(the_run()).set_index(["problem", "true_slice", "metric", "k"]).sort_index()
    for entry in read_index(root / INDEX):
        for number, hits in enumerate(by_loss(root, entry).T):
            for protocol in ("worst_slice", "best_auroc"):  # there is one slice
                one = scores[scores["protocol"] == protocol].loc[entry.container_id, number]["value"]
                assert one["precision_at_k", 10].item() == hits[:10].sum() / 10
                assert one["precision_at_k", 25].item() == hits[:25].sum() / 25
                assert one["recall_at_k", 25].item() == pytest.approx(hits[:25].sum() / hits.sum())
                places = np.flatnonzero(hits) + 1
                precisions = np.arange(1, len(places) + 1) / places
                assert one["average_precision"].item() == pytest.approx(precisions.mean())
    assert set(scores["kind"]) == {"correlation", "noisy_label", "rare"}
    examples = table(the_run(), "examples")
    named = examples[examples["attribute_true_slice"] != ""].groupby("problem").size()
    expected = json.loads((root / "expected.json").read_text())
    assert named.to_dict() == {problem: sum(of["slice_sizes"]) for problem, of in expected.items()}


def test_the_real_problems_may_be_chosen(data, slicebench):
    data("dcbench")
    assert checked(slicebench)[1] == {"correlation problems": 1, "noisy_label problems": 1, "rare problems": 1}
    done = slicebench("run", *QUICK, "dataset.kind=[rare,noisy_label]", "dataset.embedding=clip")
    assert done.exit_code == 0, done.stderr
    assert set(table(the_run())["problem"]) == {"p_101001", "p_101003"}
