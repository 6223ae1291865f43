"""`slicebench collect --compare` and `--analyse`, on folders of experiments."""

import json
from pathlib import Path

import pandas as pd
import pytest

from experiments.files import write_json

OBJECTIVES = [{"measure": "objective", "slice": s, "value": v} for s, v in ((1, 0.9), (2, 0.5))]


def test_published_and_measured_stand_side_by_side(slicebench, analysed_experiment):
    folder = analysed_experiment("spotlight/fairface", OBJECTIVES)
    done = slicebench("collect", str(folder), "--compare")
    assert done.exit_code == 0, done.stderr
    assert "spotlight/fairface, scale here" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.strip().startswith("objective")]
    assert "0.811, 0.656, 0.684, 0.567, 0.552" in line
    assert "0.9, 0.5" in line
    assert "(release, stored results, five spotlights)" in line
    (line,) = [line for line in done.stdout.splitlines() if line.strip().startswith("n_george_clusters")]
    assert "not measured" in line


def test_known_reasons_for_a_difference_follow(slicebench, analysed_experiment):
    about = {"stand_ins": ["images of 64 pixels [small]"], "notes": ["Images are normalised here."]}
    folder = analysed_experiment("spotlight/fairface", OBJECTIVES, **about)
    lines = slicebench("collect", str(folder), "--compare").stdout.splitlines()
    assert "- stand-in: images of 64 pixels [small]" in lines
    assert "- Images are normalised here." in lines


def test_all_experiments_below_a_folder_are_compared(slicebench, analysed_experiment):
    analysed_experiment("spotlight/fairface", OBJECTIVES)
    analysed_experiment("spotlight/tabular", OBJECTIVES)
    text = slicebench("collect", "outputs", "--compare").stdout
    assert "spotlight/fairface, scale here" in text
    assert text.index("spotlight/tabular, scale here") < text.index("no numbers were published to compare with")


def test_a_comparison_as_json(slicebench, analysed_experiment):
    analysed_experiment("infembed/covid", [])
    rows = json.loads(slicebench("collect", "outputs", "--compare", "--json").stdout, parse_constant=pytest.fail)
    own = {"experiment", "scale", "measure", "published", "source", "place", "measured_on", "measured", "low", "high"}
    assert all(set(row) == {*own, "note"} for row in rows)
    (negatives,) = [row for row in rows if row["measure"] == "true_negatives"]
    assert negatives["published"] == [None, 2, 0]
    assert negatives["measured"] is None


def test_what_is_not_analysed_is_said_and_keeps_no_other_back(slicebench, analysed_experiment):
    analysed_experiment("spotlight/fairface", OBJECTIVES)
    (analysed_experiment("spotlight/amazon") / "analysis" / "summary.json").unlink()
    done = slicebench("collect", "outputs", "--compare")
    assert done.exit_code == 0
    assert "spotlight/fairface, scale here" in done.stdout
    assert "spotlight/amazon-here has not been analysed: slicebench collect" in done.stderr


@pytest.mark.parametrize("option", ["--compare", "--analyse"])
def test_a_folder_without_experiments_is_refused_in_one_line(slicebench, option):
    Path("empty").mkdir()
    for folder in ("empty", "nowhere"):
        done = slicebench("collect", folder, option)
        assert done.exit_code == 2
        assert done.stderr.splitlines() == [
            f"slicebench: {folder} holds no experiment, expected a folder that `slicebench run experiment=...` wrote to"
        ]


def test_an_experiment_that_was_not_analysed_is_refused_in_one_line(slicebench, analysed_experiment):
    folder = analysed_experiment("spotlight/fairface")
    (folder / "analysis" / "summary.json").unlink()
    done = slicebench("collect", str(folder), "--compare")
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"slicebench collect {folder} --analyse" in done.stderr


def test_a_summary_that_is_cut_off_is_named(slicebench, analysed_experiment):
    folder = analysed_experiment("spotlight/fairface")
    (folder / "analysis" / "summary.json").write_text("{")
    done = slicebench("collect", str(folder), "--compare")
    assert done.exit_code == 2
    assert "summary.json cannot be read" in done.stderr


@pytest.fixture
def run_of_an_experiment(slicebench):
    """A finished run, and the record of an experiment that it belongs to."""
    folder = Path("outputs/experiments/spotlight/fairface-here")
    assert slicebench("run", "method=highest_loss", "model.training.epochs=1", f"paths.results={folder}").exit_code == 0
    (run,) = [path.parent.relative_to(folder).as_posix() for path in folder.rglob("run.json")]
    record = {"experiment": "spotlight/fairface", "scale": "here", "command": "slicebench run experiment=..."}
    record |= {"stand_ins": [], "notes": [], "refused": [], "missing": [], "runs": [run]}
    write_json(folder / "experiment.json", {**record, "analyses": [{"name": "slices", "options": {}}]})
    return folder


def test_analyses_are_run_again_and_compared(slicebench, run_of_an_experiment):
    done = slicebench("collect", "outputs", "--analyse", "--compare")
    assert done.exit_code == 0, done.stderr
    numbers = pd.read_parquet(run_of_an_experiment / "analysis" / "numbers.parquet")
    assert {"size", "mean_loss"} <= set(numbers["measure"])
    assert f"results: {run_of_an_experiment}/analysis/report.md" in done.stderr
    assert "spotlight/fairface, scale here" in done.stdout


def test_an_analysis_removes_what_is_no_longer_made_and_no_file_of_the_user_s(slicebench, run_of_an_experiment):
    folder = run_of_an_experiment / "analysis"
    (folder / "mine").mkdir(parents=True)
    for name in ("slices-of-last-year.png", "notes.txt", "mine/slices.png"):
        (folder / name).write_text("before")
    assert slicebench("collect", "outputs", "--analyse").exit_code == 0
    assert not (folder / "slices-of-last-year.png").exists()
    assert (folder / "notes.txt").read_text() == (folder / "mine" / "slices.png").read_text() == "before"


def test_one_experiment_with_missing_runs_keeps_no_other_back(slicebench, run_of_an_experiment, analysed_experiment):
    broken = analysed_experiment("infembed/covid")
    record = json.loads((broken / "experiment.json").read_text())
    write_json(broken / "experiment.json", {**record, "missing": ["method=infembed"]})
    done = slicebench("collect", "outputs", "--analyse")
    assert done.exit_code == 2
    assert "1 runs are missing, the first is method=infembed" in done.stderr
    assert (run_of_an_experiment / "analysis" / "report.md").exists()
