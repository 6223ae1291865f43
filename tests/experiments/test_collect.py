import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from experiments.cache import waiting_lock
from experiments.leaderboard import COLUMNS
from experiments.manifest import Manifest, Wanted, write_manifest

SMALL = ("corruption=relabel_subclass", "corruption.n_seeds=2", "model.training.epochs=10")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where finished runs are kept for all tests, each of which has a copy."""
    return tmp_path_factory.mktemp("kept") / "outputs"


@pytest.fixture
def collected(slicebench, kept):
    if not kept.exists():
        for method in ("random", "highest_loss"):
            assert slicebench("run", *SMALL, f"method={method}").exit_code == 0
        shutil.copytree("outputs", kept)
    shutil.copytree(kept, "outputs", dirs_exist_ok=True)
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


def manifest(*runs, results="outputs"):
    """Write the manifest of a sweep of such runs: (override, folder or none)."""
    wanted = tuple(Wanted((override, "tracking=none"), run, None if run else "why") for override, run in runs)
    write_manifest(Path(results), Manifest("slicebench run ...", wanted))


def changed(name, **content):
    """Change what the `run.json` of a method's run says."""
    (path,) = Path("outputs", "digits").glob(f"{name}-*/run.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | content))
    return f"{path.parent.parent.name}/{path.parent.name}"


def said(slicebench):
    return slicebench("collect", "outputs").stderr


def test_what_is_not_in_the_table_is_named_with_its_state(collected, slicebench):
    failed = changed("random", status="failed", error="KeyError: 3")
    manifest(("method=gmm", "digits/gmm-0"), ("method=3", None))
    (Path("outputs") / "sweeps" / "0123456789abcdef.json").write_text("{")
    done = slicebench("collect", "outputs")
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [
        f"not in the table: {failed} (failed), digits/gmm-0 (missing), method=3 (failed), "
        "outputs/sweeps/0123456789abcdef.json (unreadable)"
    ]
    assert "random" not in set(board()["method"])


def test_a_run_under_way_is_not_in_the_table(collected, slicebench):
    running = changed("random", status="running")
    (path,) = Path("outputs", "digits").glob("random-*")
    with waiting_lock(path / "lock", "the run"):
        assert said(slicebench) == f"not in the table: {running} (running)\n"
    assert said(slicebench) == f"not in the table: {running} (killed)\n"


def test_a_run_whose_scores_are_cut_off_is_not_in_the_table(collected, slicebench):
    (path,) = Path("outputs", "digits").glob("random-*/scores.parquet")
    path.write_bytes(path.read_bytes()[:-1])
    assert "(killed)" in said(slicebench)
    assert "random" not in set(board()["method"])


def test_scores_that_cannot_be_read_are_named(collected, slicebench):
    (path,) = Path("outputs", "digits").glob("random-*/scores.parquet")
    path.write_bytes(bytes(path.stat().st_size))
    done = slicebench("collect", "outputs")
    assert done.exit_code == 2
    assert f"{path} cannot be read" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_run_that_was_changed_by_hand_is_named(collected, slicebench):
    (path,) = Path("outputs", "digits").glob("random-*/config.yaml")
    path.write_text(path.read_text().replace("n_seeds: 2", "n_seeds: 3"))
    done = slicebench("collect", "outputs")
    assert done.exit_code == 2
    assert f"{path}: corruption.n_seeds is 3, but this run has 2" in done.stderr


def test_of_many_that_are_missing_the_first_are_named(collected, slicebench):
    manifest(*((f"seeds.method={seed}", f"digits/gmm-{seed}") for seed in range(30)))
    assert said(slicebench).endswith("digits/gmm-9 (missing) and 20 others\n")


def test_runs_of_several_commits_are_said_to_be_so(collected, slicebench):
    commits = {"random": {"commit": 40 * "a", "dirty": False}, "highest_loss": {"commit": 40 * "b", "dirty": True}}
    for name, git in commits.items():
        changed(name, git=git)
    says = f"1 by {12 * 'b'} with uncommitted changes, 1 by {12 * 'a'}"
    assert said(slicebench) == f"runs were made by several commits, which count as one version of the code: {says}\n"
    changed("highest_loss", git=commits["random"])
    assert said(slicebench) == ""


def test_a_sweep_that_has_not_begun_has_nothing_to_collect(slicebench):
    manifest(("method=gmm", "digits/gmm-0"), ("method=3", None), results="outputs/new")
    done = slicebench("collect", "outputs/new")
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert "outputs/new holds no finished run (2 are failed, running or missing)" in line
    assert line.endswith("`slicebench status outputs/new`")


def test_methods_that_met_other_problems_are_not_paired(slicebench):
    slicebench("run", *SMALL, "method=random")
    slicebench("run", *SMALL, "method=highest_loss", "seeds.corruption=7")
    text = slicebench("collect", "outputs").stdout
    assert "paired difference to random" not in text


def test_other_data_under_one_seed_is_another_row(collected, slicebench, monkeypatch):
    monkeypatch.setattr("experiments.loaders.digits._fingerprint", lambda *_: "0123456789")
    assert slicebench("run", *SMALL, "method=random").exit_code == 0
    assert "runs that differ in fingerprint" in slicebench("collect", "outputs").stderr
