"""`slicebench report`: which files it writes, and which it leaves alone."""

import json
import re
import shutil
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from types import ModuleType
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments.contract import Dataset, Split
from experiments.report.examples import PICTURES
from experiments.report.report import write_report
from methods.errors import InvalidInput
from tests.experiments.analyses.reading import members


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def text_of(path):
    """What can be read on a page, in one line."""
    parts, parser = [], HTMLParser()
    parser.handle_data = parts.append
    parser.feed(path.read_text())
    return " ".join(" ".join(parts).split())


def links_of(path):
    return re.findall(r'(?:href|src)="([^"]*)"', path.read_text())


@pytest.fixture
def runs(tmp_path, stored_run):
    """The folder that runs are made in."""
    stored_run(content={})
    return tmp_path / "runs"


def test_a_single_run_stands_on_the_first_page(runs):
    page = write_report(runs)
    assert page == runs / "report" / "index.html"
    assert files_below(runs / "report") == ["index.html"]
    assert "Slice 1: 3 examples, accuracy 33%, mean loss 2.50" in text_of(page)


def test_many_runs_have_a_page_each_and_the_first_leads_to_them(runs, stored_run):
    stored_run(method="gmm")
    page = write_report(runs, runs / "elsewhere" / "deeper")
    names = files_below(page.parent)
    assert [name[:8] for name in names] == ["index.ht", "run-001-", "run-002-"]
    assert set(names[1:]) <= set(links_of(page))
    assert "index.html" in links_of(page.parent / names[1])


def test_everything_may_be_one_file(runs, stored_run, pictures_run):
    pictures_run(method="gmm")
    page = write_report(runs, inline=True)
    assert page == runs / "report.html"
    assert all(link.startswith(("data:image/", "#")) for link in links_of(page))
    assert {"#run-1", "#run-2"} < set(links_of(page))
    assert files_below(runs).count("report.html") == 1


def test_every_link_leads_somewhere(runs, pictures_run, stored_run):
    pictures_run(method="gmm")
    stored_run(slices={name: members(8, [0], [1]) for name in "abc"}, method="domino")
    for page in (*write_report(runs).parent.glob("*.html"), write_report(runs, inline=True)):
        for link in links_of(page):
            parts = urlsplit(link)
            if parts.scheme != "data":
                other = page.parent / unquote(parts.path) if parts.path else page
                assert other.is_file()
                assert not parts.fragment or f'id="{parts.fragment}"' in other.read_text()


def test_a_new_report_takes_the_place_of_the_old_one(runs, pictures_run):
    pictures_run(method="gmm")
    first = files_below(write_report(runs).parent)
    shutil.rmtree(next((runs / "fairface").glob("gmm-*")))
    assert files_below(write_report(runs).parent) == ["index.html"] != first
    assert [path.name for path in runs.iterdir()].count("report") == 1
    assert not [path for path in runs.iterdir() if path.name.startswith(".")]


def test_the_same_runs_give_the_same_report(runs, pictures_run):
    pictures_run(method="gmm")
    first, again = (write_report(runs, runs / name).parent for name in ("first", "again"))
    assert files_below(first) == files_below(again)
    assert all((first / name).read_bytes() == (again / name).read_bytes() for name in files_below(first))


def test_a_report_goes_into_an_empty_folder(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    assert write_report(runs, tmp_path / "empty").is_file()


@pytest.mark.parametrize("name", ["notes.txt", "index.html", "files/cat.png", "more/page.html"])
def test_folders_of_somebody_else_are_left_alone(runs, tmp_path, name):
    file = tmp_path / "mine" / name
    file.parent.mkdir(parents=True)
    file.write_text("do not lose this")
    with pytest.raises(InvalidInput, match="is there already, and no report of ours: choose another place with --outp"):
        write_report(runs, tmp_path / "mine")
    assert files_below(tmp_path / "mine") == [name]
    assert file.read_text() == "do not lose this"


def test_what_somebody_put_into_a_report_is_not_lost(runs):
    page = write_report(runs)
    (page.parent / "notes.txt").write_text("look at slice 3")
    with pytest.raises(InvalidInput, match=r"notes\.txt is there already"):
        write_report(runs)
    assert (page.parent / "notes.txt").read_text() == "look at slice 3"


@pytest.mark.parametrize("inline", [True, False])
def test_files_of_somebody_else_are_left_alone(runs, tmp_path, inline):
    file = tmp_path / "page.html"
    file.write_text("<p>mine")
    with pytest.raises(InvalidInput, match=r"page\.html is there already"):
        write_report(runs, file, inline=inline)
    assert file.read_text() == "<p>mine"


def test_a_report_of_one_kind_does_not_replace_the_other(runs, tmp_path):
    write_report(runs, tmp_path / "folder")
    write_report(runs, tmp_path / "file", inline=True)
    with pytest.raises(InvalidInput, match="folder is there already"):
        write_report(runs, tmp_path / "folder", inline=True)
    with pytest.raises(InvalidInput, match="file is there already"):
        write_report(runs, tmp_path / "file")
    assert write_report(runs, tmp_path / "file", inline=True).is_file()


def test_a_report_that_fails_leaves_the_old_one(runs, monkeypatch):
    page = write_report(runs)
    before = page.read_bytes()
    monkeypatch.setattr("experiments.report.report.overview", lambda *rest: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(runs)
    assert page.read_bytes() == before
    assert sorted(path.name for path in runs.iterdir()) == ["fairface", "report"]


def test_of_a_folder_without_finished_runs_there_is_no_report(runs, stored_run, tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InvalidInput, match="holds no runs"):
        write_report(tmp_path / "nothing")
    for path in runs.rglob("run.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "status": "failed"}))
    with pytest.raises(InvalidInput, match="holds no finished run to report on: `slicebench status"):
        write_report(runs)
    assert not (runs / "report").exists()


def test_a_run_that_was_changed_by_hand_is_not_in_the_report(runs, stored_run, capsys):
    changed = stored_run(method="gmm").folder / "config.yaml"
    changed.write_text(changed.read_text().replace("confidence: 0.95", "confidence: 0.5"))
    write_report(runs)
    assert files_below(runs / "report") == ["index.html"]
    assert "not in the report: " in capsys.readouterr().err


def test_of_a_dozen_runs_three_problems_are_shown_and_of_more_only_one(runs, stored_run):
    for _ in range(12):
        stored_run(slices={name: members(8, [0]) for name in "abcd"}, truth={name: members(8, [1]) for name in "abcd"})
    assert {text_of(page).count("Problem ") for page in write_report(runs).parent.glob("run-*")} == {0, 1}
    shown = write_report(runs, n_problems=2).parent.glob("run-*")
    assert {text_of(page).count("Shown because") for page in shown} == {0, 2}


def test_a_run_without_slices_has_a_page(tmp_path, stored_run):
    stored_run(slices=np.zeros((8, 0)))
    assert "The method found no slices here." in text_of(write_report(tmp_path / "runs"))


def test_an_empty_slice_and_one_of_all_examples_can_be_shown(tmp_path, stored_run):
    stored_run(slices=members(8, [], range(8)))
    text = text_of(write_report(tmp_path / "runs"))
    assert "Slice 1: 0 examples No example of this split is in it." in text
    assert "Slice 2: 8 examples, accuracy 62%" in text
    assert "Outside of it" not in text
    assert "nan" not in text


def test_refused_problems_are_told_with_their_reason(tmp_path, stored_run):
    stored_run(slices={"a": members(8, [0])}, refused={"b": "too few examples of class cat"})
    text = text_of(write_report(tmp_path / "runs"))
    assert "2 problems, of which 1 is shown below" in text
    assert "b b refused: too few examples of class cat" in text
    assert "Problem a" in text


def test_missing_data_are_said_and_ids_shown(pictures_run, tmp_path):
    pictures_run()
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    text = text_of(write_report(tmp_path / "runs"))
    assert "pictures of the test split are missing: dataset.path is" in text
    assert "test/thing/00.png" in text


def test_the_title_is_that_of_the_experiment_of_the_folder_or_ones_own(runs, tmp_path):
    assert "<title>runs</title>" in write_report(runs).read_text()
    (runs / "experiment.json").write_text(json.dumps({"experiment": "spotlight/fairface", "scale": "here"}))
    assert "<h1><bdi>spotlight/fairface, scale here</bdi></h1>" in write_report(runs).read_text()
    assert "<h1><bdi>mine</bdi></h1>" in write_report(runs, title="mine").read_text()


def test_own_pictures_are_found_again_from_any_folder(slicebench, workspace, monkeypatch):
    """Their folder is named relative to the working directory."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            for row in range(6):
                path = workspace / "pictures" / split / label / f"{row}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(generator.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(path)
    own = ("dataset=image_folder", "dataset.path=pictures", "dataset.slice_size=3")
    done = slicebench("run", *own, "model=small_cnn", "method=random")
    assert done.exit_code == 0, done.stderr
    monkeypatch.chdir(workspace / "pictures")
    assert json.loads(slicebench("report", "../outputs", "--json").stdout) == {"report": "../outputs/report/index.html"}
    assert len(files_below(workspace / "outputs" / "report")) > 6
    assert "are missing" not in (workspace / "outputs" / "report" / "index.html").read_text()


class Noise(Sequence):
    """Pictures that no two are alike, each made when it is asked for: the hardest to make small."""

    def __len__(self):
        return 5_000

    def __getitem__(self, row):
        return Image.fromarray(np.random.default_rng(row).integers(0, 256, (224, 224, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "nowhere is no folder"),
        (["."], "holds no runs"),
        ([".", "--problems", "0"], "be greater than or equal to 1"),
    ],
)
def test_mistakes_are_explained_in_one_line(slicebench, arguments, says):
    done = slicebench("report", *arguments)
    assert done.exit_code == 2
    assert says in done.stderr
    assert "Traceback" not in done.output


def test_a_report_of_five_thousand_pictures_is_small(finished_run, tmp_path, monkeypatch):
    noise, ids, generator = Noise(), tuple(f"{row:04d}" for row in range(5_000)), np.random.default_rng(0)
    split = Split(ids, noise, None, pd.DataFrame(index=pd.Index(ids, name="id")))
    dataset = Dataset("noise", "image", (), {"test": split}, "its fingerprint")
    module = ModuleType("noise_data")
    module.Loader = type("Loader", (), {"load": lambda self, root, seed: dataset})
    monkeypatch.setitem(sys.modules, "noise_data", module)
    classes = np.array([f"class {number}" for number in range(20)])
    columns = {name: classes[generator.integers(0, 20, 5_000)] for name in ("label", "prediction", "attribute_kind")}
    places = {name: generator.normal(size=5_000) for name in ("map_x", "map_y", "attribute_age")}
    table = {**columns, **places, "id": ids, "loss": generator.exponential(size=5_000)}
    table["correct"] = columns["label"] == columns["prediction"]
    definition = {"dataset": {"_target_": "noise_data.Loader"}, "fingerprint": "its fingerprint"}
    finished_run(table, members(5_000, *(range(part, 5_000, 10) for part in range(10))), definition=definition)
    folder = write_report(tmp_path / "runs").parent
    assert len(files_below(folder)) == 1 + 1 + 10 * 2 * PICTURES  # a page, a map, and of ten slices pictures
    assert sum((folder / name).stat().st_size for name in files_below(folder)) < 10_000_000
    assert write_report(tmp_path / "runs", inline=True).stat().st_size < 10_000_000
