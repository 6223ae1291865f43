"""A problem of each kind on digits: made, trained, stored, read back and scored by the command line."""

import json
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import binomtest
from typer.testing import CliRunner

from experiments.cli import app
from experiments.contract import Dataset, Split
from experiments.loaders.digits import Digits
from experiments.reading.dcbench import INDEX, read_index, read_problem
from experiments.suites.recipes import read_suite
from experiments.training import train_or_load

KINDS = ("rare", "noisy_label", "correlation")
EACH = pytest.mark.parametrize("kind", KINDS)
N_SEEDS, DEEP = 8, 100  # so many seeds, and so many examples of each random slice
ENDINGS = {".yaml", ".json", ".npy", ".feather", ".safetensors"}


@dataclass(frozen=True)
class Made:
    """The suite as `slicebench make digits` left it."""

    data: Path
    said: str

    @property
    def root(self):
        return self.data / "suites" / "digits"

    @cached_property
    def entries(self):
        return {entry.kind: entry for entry in read_index(self.root / INDEX)}

    @cached_property
    def contents(self):
        return {kind: read_problem(self.root, entry) for kind, entry in self.entries.items()}

    def folder(self, kind):
        return (self.root / self.entries[kind].artifacts["test_slices"]).parent

    def report(self, kind):
        return json.loads((self.folder(kind) / "problem.json").read_text())

    def recipe(self, kind):
        return self.report(kind)["definition"]["recipe"]


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLICEBENCH_DATA", str(folder / "data"))
        patch.setenv("SLICEBENCH_CACHE", str(folder / "cache"))
        done = CliRunner().invoke(app, ["make", "digits", "compute.threads=1"])
    assert done.exit_code == 0, done.output
    return Made(folder / "data", done.output)


@pytest.fixture
def here(suite, slicebench, monkeypatch):
    """Call the command line where the suite is."""
    monkeypatch.setenv("SLICEBENCH_DATA", str(suite.data))
    return slicebench


@pytest.fixture
def run(here):
    """Run a method over the suite; gives the run's folder."""

    def call(*overrides, results="outputs"):
        done = here("run", "dataset=suite", "dataset.name=digits", f"paths.results={results}", *overrides)
        assert done.exit_code == 0, done.stderr
        (folder,) = (path.parent for path in Path(results).rglob("run.json"))
        return folder

    return call


def the_data(suite, kind):
    """The data set before any manipulation, as the suite's config says it."""
    block = read_suite("digits")[1][suite.recipe(kind)["block"]]
    dataset = Digits(train_share=0.4, validation_share=0.3).load(suite.data, seed=0)
    return dataset if block.planted is None else block.planted.plant(dataset, seed=0)


def cells(suite, kind, split):
    """Whether each example has the problem's class, and its value of the attribute: two arrays, shape (n,), bool."""
    recipe, dataset = suite.recipe(kind), the_data(suite, kind)
    names = np.array(dataset.class_names)[dataset.split(split).labels.numpy()]
    values = dataset.split(split).attributes[recipe["attribute"]].to_numpy()
    return names == recipe["class_name"], values == recipe["value"]


def trained_on(suite, kind):
    """The train split that a problem stores: ids and labels with the examples of the data set."""
    stored, split = suite.contents[kind].train, the_data(suite, kind).split("train")
    rows = [split.example_ids.index(one) for one in stored.ids]
    return Split(stored.ids, [split.examples[row] for row in rows], stored.labels, split.attributes.iloc[rows])


def split_of(suite, kind, name):
    return trained_on(suite, kind) if name == "train" else the_data(suite, kind).split(name)


def settings_of_block(suite, kind, settings_of):
    overrides = read_suite("digits")[1][suite.recipe(kind)["block"]].overrides
    return settings_of(*overrides, "evaluation=stored", "compute.threads=1")


def table(folder, name="scores"):
    return pd.read_parquet(folder / f"{name}.parquet")


def values(scores, metric, **where):
    """The values of a metric, those rows only that are as asked for."""
    chosen = scores[scores["metric"] == metric]
    for column, value in where.items():
        chosen = chosen[chosen[column] == value]
    return chosen["value"].tolist()


def test_one_problem_of_each_kind_is_made_and_is_fit(suite):
    assert set(suite.entries) == set(KINDS)
    assert all(suite.report(kind)["fit"] for kind in KINDS)
    assert suite.said.count(": fit") == 3
    assert list(suite.root.rglob("*.making")) == []


@EACH
def test_the_model_of_each_really_fails_on_every_true_slice(suite, kind):
    content, report = suite.contents[kind], suite.report(kind)
    correct = (content.test.stored.logits.argmax(dim=1) == content.test.labels).numpy()
    truth = content.true_slices.numpy()
    inside = [correct[members].mean() for members in truth.T]
    outside = correct[~truth.any(axis=1)].mean()
    assert max(inside) <= outside - 0.1
    assert report["test_inside"] == pytest.approx(inside)
    assert report["test_outside"] == pytest.approx(outside)
    assert report["test_sizes"] == truth.sum(axis=0).tolist()
    assert all(before - after >= 0.1 for before, after in zip(report["control_inside"], inside, strict=True))


@EACH
@pytest.mark.parametrize("name", ["validation", "test"])
def test_the_splits_that_are_evaluated_are_those_of_the_data(suite, kind, name):
    stored, split = getattr(suite.contents[kind], name), the_data(suite, kind).split(name)
    assert stored.ids == split.example_ids
    assert torch.equal(stored.labels, split.labels)


@EACH
def test_the_true_slices_are_what_class_and_attribute_say(suite, kind):
    of_class, with_value = cells(suite, kind, "test")
    slices = [of_class & ~with_value, ~of_class & with_value] if kind == "correlation" else [of_class & with_value]
    assert suite.contents[kind].true_slices.numpy().T.tolist() == [members.tolist() for members in slices]
    assert len(suite.entries[kind].slice_names) == len(slices)


def test_of_a_rare_slice_hardly_anything_is_left_in_training(suite):
    of_class, with_value = cells(suite, "rare", "train")
    split, stored = the_data(suite, "rare").split("train"), suite.contents["rare"].train
    stays = np.isin(split.example_ids, stored.ids)
    assert stays[~(of_class & with_value)].all()
    n_left, n_others = stays[of_class & with_value].sum(), (of_class & ~with_value).sum()
    assert n_left == 1
    assert n_left / (n_left + n_others) == pytest.approx(suite.recipe("rare")["strength"], abs=0.01)
    assert torch.equal(stored.labels, split.labels[torch.from_numpy(stays)])


def test_noisy_labels_are_in_the_slice_only(suite):
    of_class, with_value = cells(suite, "noisy_label", "train")
    split, stored = the_data(suite, "noisy_label").split("train"), suite.contents["noisy_label"].train
    assert stored.ids == split.example_ids
    wrong = (stored.labels != split.labels).numpy()
    assert not wrong[~(of_class & with_value)].any()
    n_slice = int((of_class & with_value).sum())
    assert binomtest(int(wrong.sum()), n_slice, suite.recipe("noisy_label")["strength"]).pvalue > 0.001


def test_class_and_stripe_are_correlated_in_training_only(suite):
    of_class, with_value = cells(suite, "correlation", "train")
    split, stored = the_data(suite, "correlation").split("train"), suite.contents["correlation"].train
    stays = np.isin(split.example_ids, stored.ids)
    strength = suite.recipe("correlation")["strength"]
    assert np.corrcoef(of_class[stays], with_value[stays])[0, 1] == pytest.approx(strength, abs=0.03)
    assert abs(np.corrcoef(*cells(suite, "correlation", "test"))[0, 1]) < 0.1
    assert torch.equal(stored.labels, split.labels[torch.from_numpy(stays)])


@EACH
@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_the_stored_outputs_are_those_of_the_stored_weights(suite, kind, name, settings_of):
    """The network by hand, with its weights, on the examples whose ids are stored."""
    split, stored = split_of(suite, kind, name), suite.contents[kind]
    stored = getattr(stored, name).stored
    model = settings_of_block(suite, kind, settings_of).model.instance.build(the_data(suite, kind))
    model.module.load_state_dict(load_file(suite.folder(kind) / "model.safetensors"))
    pixels = torch.stack([torch.from_numpy(np.array(one, dtype=np.float32) / 255)[None] for one in split.examples])
    with torch.inference_mode():
        hidden = model.module.hidden(model.module.features(pixels))
        logits = model.module.classifier(hidden)
    torch.testing.assert_close(stored.embeddings, hidden, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stored.logits, logits.log_softmax(dim=1), rtol=1e-4, atol=1e-4)


@EACH
def test_training_on_the_stored_examples_gives_the_stored_weights(suite, kind, settings_of, own_cache):
    """Ids, labels and weights belong together: the same model comes out, bit for bit."""
    settings, data = settings_of_block(suite, kind, settings_of), the_data(suite, kind)
    settings = replace(settings, paths=replace(settings.paths, cache=own_cache))
    stored = Dataset("again", "image", data.class_names, {"train": trained_on(suite, kind)}, "again")
    weights = train_or_load(settings, stored).module.state_dict()
    expected = load_file(suite.folder(kind) / "model.safetensors")
    assert set(weights) == set(expected)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_nothing_is_pickled(suite):
    files = [path for path in suite.root.rglob("*") if path.is_file() and path.parent.name != ".locks"]
    assert {path.suffix for path in files} == ENDINGS
    assert all(np.load(path, allow_pickle=False).dtype.kind in "fiu" for path in files if path.suffix == ".npy")


def test_a_second_make_makes_nothing(suite, here):
    problems = suite.root / "slice_discovery" / "problem"
    before = {path: path.stat().st_mtime_ns for path in problems.rglob("*")}
    index = (suite.root / INDEX).read_bytes()
    again = here("make", "digits", "compute.threads=1")
    assert again.exit_code == 0, again.output
    assert "3 problems, 3 of them there already" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in problems.rglob("*")} == before
    assert (suite.root / INDEX).read_bytes() == index


KNOWS = """
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from methods import Slices


@dataclass
class Knows:
    file: str

    def fit(self, outputs):
        return self

    def predict(self, outputs):
        truth = json.loads(Path(self.file).read_text())
        members = torch.tensor([truth[one] for one in outputs.example_ids], dtype=torch.bool)
        return Slices(outputs.example_ids, members.float(), members)
"""


@pytest.fixture
def told(suite, run, workspace, monkeypatch):
    """Run a method that is handed the true slices of a problem; gives the run's folder."""
    monkeypatch.delitem(sys.modules, "it_knows", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (workspace / "it_knows.py").write_text(KNOWS)

    def call(kind, *overrides):
        content = suite.contents[kind]
        truth = dict(zip(content.test.ids, content.true_slices.tolist(), strict=True))
        (workspace / "truth.json").write_text(json.dumps(truth))
        method = ("--import-path", ".", "method=custom", "method._target_=it_knows.Knows", "+method.file=truth.json")
        return run(f"dataset.problem={suite.entries[kind].container_id}", *method, *overrides)

    return call


PERFECT = (("precision_at_k", 10), ("precision_at_k", 25), "average_precision", "auroc", "precision", "recall", "f1")
PROTOCOLS = ("worst_slice", "best_average_precision", "best_auroc", "first")


def assert_perfect(scores, true_slice, size, protocols):
    """All scores are 1, but for the recall at a k that is smaller than the slice."""
    for protocol in protocols:
        where = {"protocol": protocol, "true_slice": true_slice}
        for metric in PERFECT:
            metric, at = (metric, {}) if isinstance(metric, str) else (metric[0], {"k": metric[1]})
            assert values(scores, metric, **where, **at) == [1.0], (protocol, metric)
        for k in (10, 25):
            assert values(scores, "recall_at_k", **where, k=k) == [pytest.approx(k / size)]


@pytest.mark.parametrize("kind", ["rare", "noisy_label"])
def test_who_is_handed_the_slice_scores_one_by_every_protocol(told, suite, kind):
    scores = table(told(kind))
    assert_perfect(scores, 0, int(suite.contents[kind].true_slices.sum()), PROTOCOLS)
    assert values(scores, "discovery_rate") == [1.0]
    assert values(scores, "false_discovery_rate") == [0.0]
    assert set(scores["kind"]) == {kind}


def test_who_is_handed_two_slices_scores_one_where_the_protocol_may_choose_for_each(told, suite):
    """The others choose one slice for both: `first` the first, `worst_slice` that of the larger mean loss."""
    scores, truth = table(told("correlation")), suite.contents["correlation"].true_slices
    sizes = truth.sum(dim=0).tolist()
    for true_slice, size in enumerate(sizes):
        assert_perfect(scores, true_slice, size, ("best_average_precision", "best_auroc"))
    assert values(scores, "discovery_rate") == [1.0, 1.0]
    assert values(scores, "false_discovery_rate") == [0.0]
    losses = dict(zip((0, 1), values(scores, "mean_loss"), strict=True))
    for protocol, chosen in (("first", 0), ("worst_slice", max(losses, key=losses.__getitem__))):
        assert_perfect(scores, chosen, sizes[chosen], (protocol,))
        where = {"protocol": protocol, "true_slice": 1 - chosen}
        assert set(scores[(scores[list(where)] == list(where.values())).all(axis=1)]["slice"]) == {chosen}
        # the two share no example: the other one has no hit, and all of its examples come after those of the chosen
        assert values(scores, "precision_at_k", **where) == [0.0, 0.0]
        assert values(scores, "f1", **where) == [0.0]
        assert values(scores, "average_precision", **where) == [pytest.approx(sizes[1 - chosen] / len(truth))]


def test_random_slices_hold_as_much_of_the_true_one_as_the_split_does(run, suite):
    """By the protocol `first`, which looks neither at the truth nor at the losses."""
    settings = ("method=random", "method.n_slices=1", f"evaluation.k=[10,{DEEP}]")
    scores = pd.concat(
        [table(run(*settings, f"seeds.method={seed}", results=f"seed-{seed}")) for seed in range(N_SEEDS)]
    )
    for kind, k in product(KINDS, (10, DEEP)):
        shares = values(scores, "precision_at_k", kind=kind, protocol="first", true_slice=0, k=k)
        n_drawn = N_SEEDS * k
        interval = binomtest(round(k * sum(shares)), n_drawn).proportion_ci(0.999)
        expected = suite.contents[kind].true_slices[:, 0].double().mean().item()
        assert interval.low <= expected <= interval.high, (kind, k)


def test_all_problems_are_one_run_and_methods_are_fitted_on_validation(run, suite):
    folder = run("method=gmm", "method.n_components=5")
    names = {entry.container_id for entry in suite.entries.values()}
    assert set(table(folder)["problem"]) == names
    examples = table(folder, "examples")
    assert set(examples["problem"]) == names
    assert set(examples["split"]) == {"validation", "test"}
    assert set(examples["label"]) == set(the_data(suite, "rare").class_names)


def test_a_kind_may_be_chosen(run, suite):
    scores = table(run("method=highest_loss", "dataset.kind=rare"))
    assert set(scores["problem"]) == {suite.entries["rare"].container_id}
    # of those that the model is most wrong about nearly all are in the slice that it was not trained on
    assert values(scores, "precision_at_k", protocol="worst_slice", k=10)[0] >= 0.9


def test_infembed_runs_since_the_training_examples_are_there(run):
    folder = run("method=infembed")
    scores = table(folder)
    assert set(scores["embedding"]) == {"influence"}
    assert set(scores["method"]) == {"infembed"}
    assert scores["problem"].nunique() == 3


def test_layers_of_a_model_that_is_not_run_are_refused_in_one_line(here):
    layers = ("method=infembed", "embedding.layers=[classifier]")
    done = here("run", "dataset=suite", "dataset.name=digits", *layers)
    assert done.exit_code == 2, done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("slicebench: ")]
    assert "no layer 'classifier'" in line
    assert "Traceback" not in done.output


def test_what_harms_a_slice_of_noisy_labels_are_its_wrong_labels(told, suite):
    """Of all training examples 5% are mislabelled; of the ten that harm the slice most, nearly all."""
    folder = told("noisy_label", "evaluation.opponents=10")
    opponents = table(folder, "opponents")
    stored, split = suite.contents["noisy_label"].train, the_data(suite, "noisy_label").split("train")
    wrong = dict(zip(stored.ids, (stored.labels != split.labels).tolist(), strict=True))
    share = {sign: np.mean([wrong[one] for one in rows["example_id"]]) for sign, rows in opponents.groupby("sign")}
    assert np.mean(list(wrong.values())) < 0.1
    assert share[-1] >= 0.8
    assert share[1] == 0


@EACH
def test_opponents_of_any_kind_are_training_examples_of_the_problem(told, suite, kind):
    opponents = table(told(kind, "evaluation.opponents=3"), "opponents")
    assert set(opponents["example_id"]) <= set(suite.contents[kind].train.ids)
    assert opponents.groupby(["slice", "sign"]).size().tolist() == [3, 3] * len(suite.entries[kind].slice_names)


def test_a_suite_that_was_not_made_is_named_with_those_that_were(here):
    done = here("run", "dataset=suite", "dataset.name=digts", "method=random")
    assert done.exit_code == 2
    assert "no suite 'digts'" in done.stderr
    assert "the nearest is digits" in done.stderr
