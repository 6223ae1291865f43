"""Slices in a file of one's own: what a person types, and what comes back."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import experiments.find
from experiments.describing.problems import FoundIn
from experiments.find import TAKE_ANY_FILE
from experiments.find_results import standing_out
from experiments.listing import items
from methods import Slices

N, D = 240, 4
FAST = {  # settings with which a method is quick, or works on so few examples
    "spotlight": ("steps=100",),
    "planespot": ("reduce=pca",),
    "george": ("reduce=pca", "min_class_size=20", "max_k=2", "n_neighbors=5"),
    "infembed_rule": ("min_size=5", "max_accuracy=0.9"),
}
QUICK = ("steps=100", "n_slices=2", "--no-report")


def outputs(n=N, n_classes=2):
    """Predictions of a model that is wrong about one town, which lies apart in the embeddings."""
    generator = np.random.default_rng(0)
    labels, town = generator.integers(0, n_classes, n), generator.random(n) < 0.15
    embeddings = generator.normal(size=(n, D)) + 6 * np.outer(town, np.eye(D)[0])
    predicted = np.where(town & (generator.random(n) < 0.8), (labels + 1) % n_classes, labels)
    probabilities = 0.1 / n_classes + 0.9 * np.eye(n_classes)[predicted]
    return {
        "id": np.array([f"p{row:03d}" for row in range(n)]),
        "label": labels,
        "embedding": embeddings,
        "probabilities": probabilities,
        "town": np.where(town, "Bath", "York"),
        "age": generator.integers(20, 90, n),
    }


def wide(arrays):
    """As a table with numbered columns."""
    table = pd.DataFrame({name: values for name, values in arrays.items() if values.ndim == 1})
    for singular, name in (("embedding", "embedding"), ("probability", "probabilities")):
        for column in range(arrays[name].shape[1] if name in arrays else 0):
            table[f"{singular}_{column}"] = arrays[name][:, column]
    return table


def csv(name="mine.csv", arrays=None, **columns):
    wide(arrays or outputs()).assign(**columns).to_csv(name, index=False)
    return name


def losses_only(n=N):
    arrays = outputs(n)
    losses = -np.log(arrays.pop("probabilities")[np.arange(n), arrays.pop("label")])
    return {**arrays, "loss": losses}


@pytest.fixture
def find(slicebench):
    """Call `slicebench find`; it must come to an end without a traceback."""

    def call(*arguments, code=0):
        done = slicebench("find", *map(str, arguments))
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output
        return done

    return call


@pytest.fixture
def found(find):
    """The same, and what it says as json."""
    return lambda *arguments: json.loads(find(*arguments, "--json").stdout)


def test_the_planted_slice_is_found_told_and_written(find):
    done = find(csv(), "size=15")
    assert "slices are sought in 120 of the 240 examples, drawn at random, and checked in the other 120" in done.stderr
    assert "Bath 100%" in done.stdout
    assert "in mine-slices: slices.csv, slices.parquet, summary.csv, report/index.html" in done.stdout
    members = pd.read_csv("mine-slices/slices.csv")
    assert list(members.columns[:8]) == ["slice", "half", "rank", "membership", "id", "label", "prediction", "loss"]
    assert set(members.columns[8:]) == {"correct", "town", "age"}
    first = members[(members["slice"] == 1) & (members["half"] == "held_out")]
    assert (first["town"] == "Bath").all()
    assert first["rank"].tolist() == list(range(1, len(first) + 1))
    assert first["membership"].is_monotonic_decreasing
    same = members.astype({"label": str, "prediction": str})  # of classes that have numbers, the csv looks like them
    stored = pd.read_parquet("mine-slices/slices.parquet")
    pd.testing.assert_frame_equal(stored, same, check_dtype=False, check_exact=False, rtol=1e-5)
    assert Path("mine-slices/report/index.html").is_file()


def test_numbers_are_those_of_the_members_in_each_half(found):
    told = found(csv(), *QUICK)
    members, summary = pd.read_csv("mine-slices/slices.csv"), pd.read_csv("mine-slices/summary.csv", index_col="slice")
    truth = wide(outputs()).set_index("id")
    assert not set(members.query("half == 'found'")["id"]) & set(members.query("half == 'held_out'")["id"])
    for entry in told["slices"]:
        for half, shown in told["halves"].items():
            own = members[(members["slice"] == entry["slice"]) & (members["half"] == half)]
            correct = truth.loc[own["id"]].eval("(probability_1 > 0.5) == (label == 1)")
            assert entry[half]["size"] == len(own) == summary.at[entry["slice"], f"{half}_size"]
            assert entry[half]["accuracy"] == pytest.approx(correct.mean())
            assert entry[half]["mean_loss"] == pytest.approx(own["loss"].mean(), rel=1e-5)
            others = (shown["accuracy"] * shown["size"] - correct.sum()) / (shown["size"] - len(own))
            assert summary.at[entry["slice"], f"{half}_gap"] == pytest.approx(others - correct.mean())
    assert json.loads(Path("mine-slices/find.json").read_text()) == told


def test_all_formats_give_the_same(found):
    arrays = outputs()
    csv("a.csv")
    wide(arrays).to_parquet("b.parquet")
    lists = {name: list(values) for name, values in arrays.items()}
    pd.DataFrame(lists).to_parquet("c.parquet")
    np.savez("d.npz", **arrays)
    told = [found(name, *QUICK) for name in ("a.csv", "b.parquet", "c.parquet", "d.npz")]
    assert len({json.dumps([one["slices"], one["halves"]]) for one in told}) == 1
    assert told[0]["slices"][0]["held_out"]["size"] > 0


@pytest.mark.parametrize("method", [item["name"] for item in items("methods")])
def test_every_method_takes_a_file_with_labels_and_probabilities(found, method):
    # a linear layer's, or there are no influence embeddings
    arrays = outputs()
    logits = arrays["embedding"] @ np.random.default_rng(1).normal(size=(D, 2))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    name = csv(arrays={**arrays, "probabilities": probabilities})
    told = found(name, "--method", method, "--no-report", *FAST.get(method, ()))
    assert told["method"] == method
    assert told["slices"]


@pytest.mark.parametrize("method", [item["name"] for item in items("methods")])
def test_a_method_that_needs_more_than_losses_says_so_and_names_others(find, method):
    name, asked = csv(arrays=losses_only()), ("--no-report", "--method", method, *FAST.get(method, ()))
    if method in TAKE_ANY_FILE:
        assert "below log 2 = 0.693 were taken for right" in find(name, *asked).stderr
        assert not {"label", "prediction"} & set(pd.read_csv("mine-slices/slices.csv"))
        return
    refused = find(name, *asked, code=2).stderr.splitlines()[-1]
    assert re.search("needs? l(abels|ogits)", refused)
    assert refused.endswith(
        "with any file work ball, gmm, highest_loss, kmeans, random, ridge, spotlight (--method NAME)"
    )


def test_embeddings_that_no_linear_layer_took_are_refused_for_influence(find):
    assert (
        "is not the input of a final linear layer" in find(csv(), "--method", "infembed", "--no-report", code=2).stderr
    )


def test_ten_classes_are_no_problem_for_domino(found):
    told = found(csv(arrays=outputs(n_classes=10)), "--method", "domino", "--no-report")
    assert told["settings"]["start"] == "confusion_or_kmeans"


def test_pictures_and_texts_are_kept_and_missing_pictures_counted(find):
    Path("pictures").mkdir()
    for row in range(N - 3):
        Image.new("RGB", (4, 4), (row, 0, 0)).save(f"pictures/{row}.png")
    texts = ["a dull film" if town == "Bath" else "a fine film" for town in outputs()["town"]]
    done = find(csv(image=[f"pictures/{row}.png" for row in range(N)], text=texts), "steps=200", "n_slices=1", "size=9")
    assert "3 of 240 images are not there (the first: pictures/237.png)" in done.stderr
    assert "words: dull" in done.stdout
    members = pd.read_csv("mine-slices/slices.csv")
    assert members["image"].str.fullmatch(r"pictures/\d+\.png").all()
    assert set(members["text"]) <= set(texts)
    assert list(Path("mine-slices/report/files").glob("*.png"))


def test_a_column_of_splits_says_where_slices_are_sought(find, found):
    generator = np.random.default_rng(0)
    split = generator.choice(["train", "validation", "test"], N)
    name = csv(split=split)
    done = find(name, *QUICK)
    assert (
        f"sought in the validation split ({(split == 'validation').sum()} examples) and checked in the" in done.stderr
    )
    assert "; the train split is left out: " in done.stderr
    halves = found(csv(split=np.where(split == "test", "test", "train")), *QUICK)["halves"]
    assert {half: entry["split"] for half, entry in halves.items()} == {"held_out": "test", "found": "train"}
    halves = found(csv(split=np.where(split == "test", "validation", "train")), *QUICK)["halves"]
    assert {half: entry["split"] for half, entry in halves.items()} == {"held_out": "validation", "found": "train"}
    halves = found(csv(split="train"), *QUICK)["halves"]
    assert {half: (entry["split"], entry["size"]) for half, entry in halves.items()} == {"found": ("train", N)}
    assert "leave out --held-out" in find(name, "--held-out", 0.2, *QUICK, code=2).stderr


def test_influence_embeddings_take_training_examples_where_there_are_some(find):
    arrays = outputs()
    logits = arrays["embedding"] @ np.random.default_rng(1).normal(size=(D, 2))
    given = {**arrays, "probabilities": np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)}
    name = csv(arrays=given)
    assert (
        "Hessian from the 120 examples in which slices are sought"
        in find(name, "--method", "infembed", "--no-report").stderr
    )
    name = csv(arrays=given, split=["train", "validation", "test"] * (N // 3))
    assert "Hessian from the 80 train examples" in find(name, "--method", "infembed", "--no-report").stderr


@pytest.mark.parametrize(("share", "sizes"), [(0, {"found": N}), (0.25, {"held_out": N // 4, "found": 3 * N // 4})])
def test_the_share_that_is_held_out_is_the_users(found, share, sizes):
    told = found(csv(), "--held-out", share, *QUICK)
    assert {half: entry["size"] for half, entry in told["halves"].items()} == sizes
    assert set(pd.read_csv("mine-slices/slices.csv")["half"]) == set(sizes)


def test_nothing_held_out_is_shown_in_one_block_and_said(find):
    done = find(csv(), "--held-out", 0, *QUICK)
    assert "slices are sought and shown in the same 240 examples: a group that was chosen because" in done.stderr
    assert "held out" not in done.stdout


def test_the_same_command_again_prints_the_same_and_computes_nothing(find):
    name = csv()
    first = find(name, *QUICK)
    (record,) = Path("mine-slices/runs").glob("*/*/scores.parquet")
    before = record.stat().st_mtime_ns
    again = find(name, *QUICK)
    assert again.stdout == first.stdout
    assert "done before, skipped" in again.stderr
    assert record.stat().st_mtime_ns == before


def test_another_method_replaces_the_tables_and_keeps_the_run(find):
    name = csv()
    find(name, *QUICK)
    assert "held slices of spotlight-" in find(name, "--method", "highest_loss", "--no-report").stderr
    assert set(pd.read_csv("mine-slices/slices.csv")["slice"]) == {1}
    assert "done before, skipped" in find(name, *QUICK).stderr
    assert set(pd.read_csv("mine-slices/slices.csv")["slice"]) == {1, 2}


def test_nothing_is_copied_into_the_cache(own_cache, find):
    find(csv(), *QUICK)
    assert list(own_cache.rglob("*.npy")) == []


def test_another_seed_draws_other_halves(found):
    asked = (csv(), "--method", "highest_loss", "--no-report")
    told = [found(*asked, "--seed", seed)["halves"]["found"]["mean_loss"] for seed in (0, 1)]
    assert told[0] != told[1]


ODD = ["it's, = [${x}] {a: 1} \\${HOME}.csv", 'with "quotes" and\ttabs, ünïcode ☃ and [bold].csv', "--a=b.csv"]


@pytest.mark.parametrize(("name", "more"), [(ODD[0], ()), (ODD[1], ("--no-report",)), (ODD[2], ("--no-report",))])
def test_files_and_folders_may_be_called_anything(find, workspace, name, more):
    folder = workspace / "a, b=${c} 'd'"
    folder.mkdir()
    csv(folder / name)
    done = find(folder / name, "--output", folder / f"{name} found", *QUICK[:2], *more)
    assert "mean loss" in done.stdout
    assert (folder / f"{name} found" / "report").is_dir() == (not more)
    told = json.loads((folder / f"{name} found" / "find.json").read_text())
    assert told["file"] == str(folder / name)


def test_values_may_be_anything_too(find):
    assert "size is '${x}', expected a whole number" in find(csv(), "size=${x}", code=2).stderr


OWN = """
from dataclasses import dataclass
from methods import Slices

@dataclass
class Mine:
    least: float = 0.5
    words: tuple[str, ...] = ()

    def fit(self, outputs):
        return self

    def predict(self, outputs):
        members = (outputs.losses >= self.least).unsqueeze(1)
        return Slices(outputs.example_ids, members.float(), members)
"""


def test_a_method_of_ones_own_is_taken_from_a_file_and_from_a_package(found, find, workspace):
    (workspace / "own").mkdir()
    (workspace / "own" / "mine_for_find.py").write_text(OWN)
    name = csv()
    told = found(name, "least=1.5", "words=[a, 'b c']", "--method", "own/mine_for_find.py:Mine", "--no-report")
    assert (told["method"], told["settings"]) == ("Mine", {"least": 1.5, "words": ["a", "b c"]})
    assert pd.read_csv("mine-slices/slices.csv")["loss"].min() >= 1.5
    found(name, "--method", "mine_for_find.Mine", "--import-path", workspace / "own", "--no-report")
    refused = find(name, "leest=1.5", "--method", "own/mine_for_find.py:Mine", code=2).stderr
    assert "own/mine_for_find.py:Mine has no setting 'leest'; the nearest is least" in refused
    assert "has no 'Mien'; the nearest is Mine" in find(name, "--method", "own/mine_for_find.py:Mien", code=2).stderr


def test_columns_in_another_order_than_the_alphabet_has_it_are_not_taken_for_it(find, found):
    names = np.array(["wolf", "dog"])
    name = csv(label=names[outputs()["label"]])
    refused = find(name, *QUICK, code=2).stderr
    assert "with wolf, dog it is 0.89: say which column is whose with --classes 'wolf,dog'" in refused
    right = found(name, *QUICK, "--classes", "wolf, dog")["halves"]["found"]["accuracy"]
    renamed = wide(outputs()).assign(label=names[outputs()["label"]])
    renamed.rename(columns={"probability_0": "probability_wolf", "probability_1": "probability_dog"}).to_csv(name)
    assert found(name, *QUICK)["halves"]["found"]["accuracy"] == right > 0.8
    assert set(pd.read_csv("mine-slices/slices.csv")["prediction"]) == {"wolf", "dog"}
    note = find(csv(label=np.array(["dog", "wolf"])[outputs()["label"]]), *QUICK).stderr
    assert "taken for the classes in alphabetical order (--classes says otherwise)" in note


def test_a_method_that_finds_nothing_says_with_which_settings(find):
    done = find(csv(), "--method", "kmeans", "min_size=1000", "--no-report")
    assert "kmeans (n_slices=5, n_clusters=6" in done.stdout
    assert "found no slice" in done.stdout
    assert len(pd.read_csv("mine-slices/slices.csv")) == len(pd.read_csv("mine-slices/summary.csv")) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["mien.csv"],
            "mien.csv is missing, expected a file with a model's outputs (.npz, .parquet, .csv); the n",
        ),
        (["elsewhere/mine.csv"], "elsewhere/mine.csv is missing, expected a file with a model's outputs"),
        (
            ["."],
            ". is a folder, expected a file with a model's outputs (.npz, .parquet, .csv); it holds e",
        ),
        (["mine.txt"], "mine.txt cannot be read: its name should end in .npz, .parquet or .csv"),
        (["empty.csv"], "empty.csv cannot be read as a table: No columns to parse from file"),
        (["plain.csv"], "plain.csv has no embeddings, expected in an npz an array `embeddings`"),
        (["plain.csv"], "for example: a file that begins with these two lines:\n  id,label,embedding_0"),
        (["one.csv"], "one.csv has 1 example, too few to hold out 0.5 of them: take --held-out 0"),
        (["mine.csv", "size"], "'size' is no setting of a method, expected KEY=VALUE, as size=30"),
        (["mine.csv", "sise=3"], "spotlight has no setting 'sise'; the nearest are size, sizes"),
        (["mine.csv", "size=0"], "size is 0, expected at least 1"),
        (["mine.csv", "size=["], "size is '[', expected a whole number"),
        (["mine.csv", "size=10,20"], "size is '10,20', expected a whole number"),
        (["mine.csv", "size=500"], "size has 500, expected 1 to 120"),
        (["mine.csv", "seed=3"], "the seed is set by --seed"),
        (["mine.csv", "--seed", "-1"], "--seed is -1, expected at least 0"),
        (["mine.csv", "--held-out", "1"], "--held-out is 1.0, expected at least 0 and below 1"),
        (["mine.csv", "--method", "spotlihgt"], "no method is called 'spotlihgt'; the nearest is spotlight"),
        (
            ["mine.csv", "--method", "nope.py:Mine"],
            "--method 'nope.py:Mine' cannot be imported: there is no file",
        ),
        (["mine.csv", "--method", "os.system"], "--method 'os.system' cannot be used, expected a class that can fit"),
        (["mine.csv", "--output", "mine.txt"], "mine.txt is a file, expected a folder"),
        (
            ["mine.csv", "--output", "/dev/null/x"],
            "which cannot be written to (Not a directory): choose another",
        ),
        (["mine.csv", "--output", "theirs"], "theirs/slices.csv is there already, and no result of ours"),
        (["theirs/slices.csv", "--output", "theirs"], "lies where the results would be written"),
        (["mine.csv", "--classes", "a"], "2 columns of logits, class_names has 1 names"),
    ],
)
def test_a_mistake_is_explained_and_leaves_nothing_behind(find, workspace, arguments, says):
    csv()
    for name in ("mine.txt", "empty.csv"):
        Path(name).touch()
    Path("plain.csv").write_text("a,b\n1,2\n")
    csv("one.csv", arrays=outputs(1))
    Path("theirs").mkdir()
    csv("theirs/slices.csv")
    before = sorted(workspace.rglob("*"))
    done = find(*arguments, "--no-report", code=2)
    assert says.replace("class_names", "--classes") in done.stderr
    assert done.stdout == ""
    told = done.stderr.lower()
    assert not [word for word in ("hydra", "override", "dataset.", "method.", "paths.") if word in told]
    left = [path for path in workspace.rglob("*") if path not in before]
    assert not left or says.startswith("size has 500")  # which a run had to find out


def test_a_typo_does_not_cost_the_reading_of_a_large_file(find, monkeypatch):
    monkeypatch.setattr(experiments.find, "LARGE", 0)
    monkeypatch.setattr(experiments.find, "read_outputs", lambda *_: pytest.fail("the file was read"))
    assert "there is no" not in find(csv(), "sise=3", code=2).stderr
    assert not Path("mine-slices").exists()


def test_a_folder_with_other_things_is_used_where_nothing_is_overwritten(find):
    name = csv()
    find(name, "--output", ".", *QUICK)
    assert Path("slices.csv").is_file()
    find(name, "--output", ".", *QUICK)


def test_the_help_asks_for_no_knowledge_of_what_is_behind_it(find):
    told = find("--help").stdout.lower()
    assert "embedding" in told
    assert not [word for word in ("hydra", "override", "dataset=") if word in told]


def test_errors_of_many_kinds_are_only_counted():
    labels, predictions = list("abcdef"), list("bcdefa")
    assert standing_out(half(labels, predictions, [True] * 6), 1) == "6 errors of many kinds"


def half(labels, predictions, member, **columns):
    n = len(labels)
    examples = pd.DataFrame({"label": labels, "prediction": predictions, "text": None, **columns})
    examples["correct"] = examples["label"] == examples["prediction"]
    members = torch.tensor(member)[:, None]
    ids = tuple(f"{row:02d}" for row in range(n))
    return FoundIn("test", examples.assign(id=ids), Slices(ids, members.float(), members))


@pytest.mark.parametrize(
    ("predictions", "says"),
    [
        ("aabbb", "no errors"),
        ("babbb", "the only error: a -> b"),
        ("bbbba", "both errors: a -> b"),
        ("cbaab", "2 of 4 errors: b -> a"),
    ],
)
def test_the_commonest_error_is_told(predictions, says):
    assert standing_out(half(list("aabbb"), list(predictions), [True] * 4 + [False]), 1) == says
