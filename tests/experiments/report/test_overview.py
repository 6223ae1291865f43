"""What a report says of all runs together."""

import json

import pytest

from experiments.finished import titles
from experiments.report.assets import Assets
from experiments.report.overview import overview
from experiments.runs import find_results
from tests.experiments.analyses.reading import members


@pytest.fixture
def first_page(tmp_path):
    """Of these runs, and whatever else lies in the folder."""

    def make(*runs, folder=tmp_path):
        links = [f"{index}.html" for index in range(len(runs))]
        shown = list(zip(runs, titles(list(runs)), links, strict=True))
        return overview("a title", folder, find_results(tmp_path), shown, Assets(tmp_path / "report"))

    return make


@pytest.fixture
def two_methods(stored_run):
    """One that finds the true slice of each of three problems, and one that finds all the others."""
    truth = {name: members(8, rows) for name, rows in {"p": [0, 1], "q": [2, 3], "r": [4]}.items()}
    finds = stored_run(slices=truth, truth=truth, method="spotlight")
    misses = stored_run(slices={name: 1 - of for name, of in truth.items()}, truth=truth, method="gmm")
    return misses, finds


def test_the_leaderboard_has_means_with_intervals_the_best_first(two_methods, first_page):
    (board,) = first_page(*two_methods).boards
    assert board.measures == ["precision-at-10", "F1", "average precision"]
    assert [name for name, _ in board.rows] == ["spotlight", "gmm"]
    best = board.rows[0][1]
    assert best[0].mean == pytest.approx((0.2 + 0.2 + 0.1) / 3)  # of ten places, as many as the slice has examples
    assert (best[1].mean, best[1].low, best[1].high) == (1.0, 1.0, 1.0)
    assert best[1].dot.at == 97.0
    assert "3 problems in 3 groups" in board.notes[0]


def test_refused_problems_are_counted(two_methods, stored_run, first_page):
    truth = {"p": members(8, [0, 1])}
    run = stored_run(slices=truth, truth=truth, method="domino", refused={"q": "too few", "r": "too few"})
    page = first_page(*two_methods, run)
    assert "domino refused 2" in page.boards[0].notes[0]
    assert [(line.title, line.n_problems, line.n_refused) for line in page.lines][-1] == ("domino", 3, 2)


def test_without_true_slices_there_is_no_leaderboard(stored_run, first_page):
    assert first_page(stored_run()).boards == []


def test_runs_are_lines_with_what_tells_them_apart(stored_run, first_page):
    page = first_page(stored_run(model="resnet"), stored_run(model="mlp"))
    assert page.heads == ["model"]
    assert [line.names for line in page.lines] == [("resnet",), ("mlp",)]
    assert [line.page for line in page.lines] == ["0.html", "1.html"]
    assert page.shared == [("data set", "fairface"), ("embedding", "final_hidden"), ("corruption", "none")]


def test_the_parts_of_a_stage_are_not_counted_twice(stored_run, first_page):
    page = first_page(stored_run(seconds={"train": 60.0, "train: waiting for data": 30.0, "discover": 1.5}))
    assert page.lines[0].seconds == 61.5


def test_runs_that_are_not_done_are_named(stored_run, first_page):
    run = stored_run()
    other = stored_run(method="gmm").folder
    content = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps({**content, "status": "failed"}))
    assert first_page(run).missing == [f"fairface/{other.name} (failed)"]


def test_whose_code_and_which_machines_made_the_runs(stored_run, first_page):
    changed = {"git": {"commit": "def", "dirty": True}, "device": "NVIDIA H200"}
    page = first_page(stored_run(), stored_run(content=changed), stored_run(content={"device": "cpu"}))
    assert page.commits == ["abc", "def with uncommitted changes"]
    assert page.devices == ["NVIDIA H200", "cpu"]


FACES = {"measure": "size", "value": 100.0, "slice": 1, "n": 100}


def test_what_was_published_stands_beside_what_was_measured(stored_run, first_page, analysed_experiment, tmp_path):
    folder = analysed_experiment(
        "spotlight/fairface", [FACES], {"sheet": (50, "fairface")}, stand_ins=["fewer pictures"], notes=["mind this"]
    )
    (compared,) = first_page(stored_run(), folder=folder).compared
    assert compared.title == "spotlight/fairface, scale here"
    assert len(compared.rows) > 3
    assert all(len(row) == len(compared.header) for row in compared.rows)
    assert compared.reasons == ["stand-in: fewer pictures", "mind this"]
    ((address, caption),) = compared.pictures
    assert caption == "What sheet shows."
    assert (tmp_path / "report" / address).read_bytes() == (folder / "analysis" / "sheet.png").read_bytes()


def test_an_experiment_that_was_not_analysed_has_nothing_to_compare(stored_run, first_page, analysed_experiment):
    folder = analysed_experiment("spotlight/fairface", [FACES])
    (folder / "analysis" / "summary.json").unlink()
    assert first_page(stored_run(), folder=folder).compared == []


def test_pictures_that_are_gone_are_left_out(stored_run, first_page, analysed_experiment):
    folder = analysed_experiment("spotlight/fairface", [FACES], {"sheet": (50, None), "other": (50, None)})
    (folder / "analysis" / "sheet.png").unlink()
    ((_, caption),) = first_page(stored_run(), folder=folder).compared[0].pictures
    assert caption == "What other shows."


def test_no_picture_comes_from_outside_of_the_experiment(stored_run, first_page, analysed_experiment, tmp_path):
    (tmp_path / "private.png").write_bytes(b"not to be shown")
    folder = analysed_experiment("spotlight/fairface", [FACES])
    summary = json.loads((folder / "analysis" / "summary.json").read_text())
    summary["pictures"] = [{"file": str(tmp_path / "private"), "caption": "look", "shows": None}]
    (folder / "analysis" / "summary.json").write_text(json.dumps(summary))
    assert first_page(stored_run(), folder=folder).compared[0].pictures == []
