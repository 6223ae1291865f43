import json
from pathlib import Path

import pandas as pd
import pytest

from experiments.leaderboard import COLUMNS

SMALL = ("corruption=relabel_subclass", "corruption.n_seeds=2", "model.training.epochs=10")


@pytest.fixture
def collected(slicebench):
    for method in ("random", "highest_loss"):
        assert slicebench("run", *SMALL, f"method={method}").exit_code == 0
    return slicebench("collect", "outputs")


def board():
    return pd.read_csv("outputs/collected/leaderboard.csv", keep_default_na=False, na_values=[""])


def test_collect_prints_the_leaderboard_and_says_where_everything_is(collected):
    assert collected.exit_code == 0, collected.stderr
    lines = collected.stdout.splitlines()
    ranks = [index for index, line in enumerate(lines) if line.strip().startswith(("highest_loss ", "random "))]
    assert [lines[index].split()[0] for index in ranks] == ["highest_loss", "random"]
    assert "20 problems in 10 groups; [95% interval over groups, 2000 resamples]" in collected.stdout
    assert "paired difference to random: highest_loss +0." in collected.stdout
    assert "results: outputs/collected" in collected.stdout
    table = lines[ranks[0] - 2 : ranks[-1] + 1]
    assert max(map(len, table)) <= 80


def test_everything_is_written(collected):
    assert tuple(board().columns) == COLUMNS
    scores = pd.read_parquet("outputs/collected/scores.parquet")
    assert scores["run"].nunique() == 2
    markdown = Path("outputs/collected/leaderboard.md").read_text()
    assert "| method | precision-at-10 | F1 | average precision |" in markdown
    pairs = pd.read_csv("outputs/collected/differences.csv")
    assert set(pairs["metric"]) == {"precision_at_k", "f1", "average_precision"}


def test_the_csv_has_every_protocol_metric_and_k(collected):
    rows = board().dropna(subset="protocol")
    assert set(rows["protocol"]) == {"worst_slice", "best_average_precision", "best_auroc", "first", "spotcheck"}
    expected = {"precision_at_k", "recall_at_k", "average_precision", "auroc", "precision", "recall", "f1"}
    rates = {"discovery_rate", "false_discovery_rate"}
    assert set(rows.query("protocol != 'spotcheck'")["metric"]) == expected
    assert set(rows.query("protocol == 'spotcheck'")["metric"]) == rates
    assert set(rows["k"].dropna()) == {10, 25}


def test_collecting_again_gives_the_same(collected, slicebench):
    before = Path("outputs/collected/leaderboard.csv").read_text()
    assert slicebench("collect", "outputs").stdout == collected.stdout
    assert Path("outputs/collected/leaderboard.csv").read_text() == before


def test_a_leaderboard_as_json(collected, slicebench):
    rows = json.loads(slicebench("collect", "outputs", "--json").stdout)
    assert set(rows[0]) == set(COLUMNS)


def test_intervals_may_be_wider(collected, slicebench):
    def width():
        row = board().query("method == 'random' and protocol == 'first' and metric == 'f1'").iloc[0]
        return row["high"] - row["low"]

    narrow = width()
    slicebench("collect", "outputs", "--confidence", "0.999")
    assert width() > narrow
    done = slicebench("collect", "outputs", "--confidence", "95")
    assert done.exit_code == 2
    assert "confidence between 0 and 1" in done.stderr


def test_runs_of_another_version_are_other_rows(collected, slicebench, monkeypatch):
    monkeypatch.setattr("methods.random_slices.RandomSlices.version", 2)
    assert slicebench("run", *SMALL, "method=random").exit_code == 0
    done = slicebench("collect", "outputs")
    assert "random: runs that differ in versions.method are shown as different rows" in done.stderr
    assert "random versions.method=1" in done.stdout
    assert "random versions.method=2" in done.stdout


def test_other_settings_are_other_rows_with_their_names(collected, slicebench):
    assert slicebench("run", *SMALL, "method=highest_loss", "method.size=20").exit_code == 0
    assert slicebench("run", *SMALL, "method=highest_loss", "method.size=30", "+method.label=mine").exit_code == 0
    text = slicebench("collect", "outputs").stdout
    assert "highest_loss size=20" in text
    assert "highest_loss mine" in text


def test_problems_without_truth_are_collected_too(slicebench):
    slicebench("run", "method=highest_loss")
    done = slicebench("collect", "outputs")
    assert done.exit_code == 0, done.stderr
    assert "no true slices to rank methods by; what there is stands in leaderboard.csv" in done.stdout
    assert {"size", "mean_loss", "accuracy", "gap"} <= set(board()["metric"])


def test_what_is_not_finished_is_said(collected, slicebench):
    slicebench("run", "method=gmm", "method.n_components=5000")
    assert "(failed)" in slicebench("collect", "outputs").stderr


def test_methods_that_met_other_problems_are_not_paired(slicebench):
    slicebench("run", *SMALL, "method=random")
    slicebench("run", *SMALL, "method=highest_loss", "seeds.corruption=7")
    text = slicebench("collect", "outputs").stdout
    assert "paired difference to random" not in text


def test_other_data_under_one_seed_is_another_row(collected, slicebench, monkeypatch):
    monkeypatch.setattr("experiments.loaders.digits._fingerprint", lambda *_: "0123456789")
    assert slicebench("run", *SMALL, "method=random").exit_code == 0
    assert "runs that differ in fingerprint" in slicebench("collect", "outputs").stderr
