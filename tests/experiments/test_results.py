"""What is written to be committed: numbers, pictures that may be passed on, and a page; nothing of the machine."""

import json
import math
import os
import re
import socket
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import typer
import yaml
from PIL import Image

import experiments
from experiments.listing import items
from experiments.results import ATTRIBUTION, LARGEST, analysed, main, may_be_shown, portable, write_results
from experiments.results_page import shown_experiments
from methods.errors import InvalidInput

OBJECTIVES = [{"measure": "objective", "slice": s, "value": v} for s, v in ((1, 0.9), (2, 0.5))]
OUTPUTS = Path("outputs/experiments")
TO = Path("committed/results")


@pytest.fixture
def written(workspace, monkeypatch):
    """Write the results; the text of every file that is not a png, by path."""
    monkeypatch.setenv("SLICEBENCH_DATA", str(workspace / "data"))

    def write():
        write_results(OUTPUTS, TO)
        files = [path for path in Path("committed").rglob("*.*") if path.is_file()]
        return {path.relative_to("committed").as_posix(): path.read_bytes() for path in files}

    return write


def content_of(files, name):
    return json.loads(files[f"results/{name}.json"], parse_constant=pytest.fail)


def section_of(files, name):
    page = files["README.md"].decode()
    return page.split(f"### {name}\n")[1].split("\n### ")[0]


def test_numbers_have_six_digits_and_no_empty_columns(written, analysed_experiment):
    rows = [{"measure": "mean_loss", "group": "all", "value": 1 / 3, "n": 5}, {"measure": "size", "value": math.inf}]
    analysed_experiment("spotlight/fairface", rows)
    content = content_of(written(), "spotlight/fairface")
    first, second = (
        content["everywhere"] | dict(zip(content["columns"], row, strict=True)) for row in content["numbers"]
    )
    own = {"analysis": "slices", "dataset": "fairface slice_size=100", "method": "spotlight", "split": "test"}
    assert first == {**own, "measure": "mean_loss", "group": "all", "value": 0.333333, "n": 5}
    assert second["value"] is None
    assert content["everywhere"] == own  # said once


def test_the_comparison_and_what_it_was_made_with_are_there(written, analysed_experiment):
    refused = [{"overrides": "method=george", "reason": "too few images"}]
    about = {"stand_ins": ["small images"], "notes": ["a note"], "refused": refused}
    analysed_experiment("spotlight/fairface", OBJECTIVES, **about)
    content = content_of(written(), "spotlight/fairface")
    assert about.items() <= content.items()
    assert content["stamp"]["seconds"]["train"] == 90.0
    assert content["comparison"][0]["measured"] == [0.9, 0.5]


def test_a_section_shows_all_that_a_reader_needs(written, analysed_experiment):
    refused = [{"overrides": "experiment=x paths.results=y dataset=fairface method=george", "reason": "too few"}]
    about = {"stand_ins": ["small images"], "notes": ["a note"], "refused": refused}
    analysed_experiment("spotlight/fairface", OBJECTIVES, {"slices-losses": (20, None)}, **about)
    TO.mkdir(parents=True)
    (TO / "findings.yaml").write_text("spotlight/fairface: Children stand out.\n")
    text = section_of(written(), "spotlight/fairface")
    shows = {item["name"]: item["summary"] for item in items("experiments")}["spotlight/fairface"]
    for part in (
        f"{shows}\n\nChildren stand out.\n\n```\nslicebench run experiment=spotlight/fairface scale=here\n```\n",
        "| objective | 0.811, 0.656, 0.684, 0.567, 0.552 | 0.9, 0.5 | validation images, spotlights of 2% (release,",
        "- stand-in: small images\n- a note\n- refused: `dataset=fairface method=george`: too few\n",
        "![What slices-losses shows.](results/spotlight/fairface/slices-losses.png)\n\n*What slices-losses shows.*",
        "1.5 minutes of work, what was cached before not counted; runs: 1; device: cpu; threads: 2; commit: abc.",
        "[spotlight/fairface.json](results/spotlight/fairface.json)",
    ):
        assert part in text


def test_the_table_at_the_top_has_the_first_sentence_of_each_finding(written, analysed_experiment):
    analysed_experiment("spotlight/fairface", OBJECTIVES)
    TO.mkdir(parents=True)
    (TO / "findings.yaml").write_text("spotlight/fairface: Children have 0.8. Nothing else has.\n")
    rows = written()["README.md"].decode().split("\n\n### ")[0].splitlines()
    (row,) = (row for row in rows if row.startswith("| [spotlight/fairface]"))
    assert row.startswith("| [spotlight/fairface](#spotlightfairface) | Figures 2")
    assert row.endswith(" | Children have 0.8. |")
    assert sum(row.endswith(" | not measured |") for row in rows) == 17


def test_every_link_of_the_page_leads_to_a_file(written, analysed_experiment):
    pictures = {"slices-losses": (20, None), "makeup-age, race": (20, None)}
    analysed_experiment("spotlight/fairface", OBJECTIVES, pictures)
    links = re.findall(r"\]\(([^)#]+)\)", written()["README.md"].decode())
    assert len(links) == 4
    there = [Path("committed") / link.replace("%20", " ").replace("%2C", ",") for link in links]
    assert [path.name for path in there if not path.exists()] == ["published.yaml"]  # beside the page, where it belongs


def test_every_experiment_of_both_papers_has_a_section(written, analysed_experiment):
    analysed_experiment("spotlight/fairface", OBJECTIVES)
    headings = re.findall(r"^### (.*)$", written()["README.md"].decode(), flags=re.MULTILINE)
    names = [item["name"] for item in items("experiments") if "/" in item["name"]]
    assert len(headings) == 18
    assert sorted(headings) == sorted(names)


def test_what_was_not_measured_says_why(written, analysed_experiment, workspace):
    (workspace / "data" / "uci").mkdir(parents=True)
    unfinished = analysed_experiment("infembed/covid", missing=["experiment=infembed/covid dataset=covid_xray"])
    (unfinished / "analysis" / "summary.json").unlink()
    record = json.loads((unfinished / "experiment.json").read_text())
    missing = ["experiment=infembed/covid paths.results=z dataset=covid_xray"]
    (unfinished / "experiment.json").write_text(json.dumps({**record, "missing": missing}))
    files = written()
    assert "Not measured: 1 of 2 runs are missing, the first is `dataset=covid_xray`." in section_of(
        files, record["experiment"]
    )
    assert "Not measured: it needs data that are not on this machine: fairface" in section_of(
        files, "spotlight/fairface"
    )
    assert "Not measured: it has not been run yet." in section_of(files, "spotlight/tabular")


def test_the_same_inputs_give_the_same_bytes(written, analysed_experiment):
    analysed_experiment("spotlight/fairface", OBJECTIVES, {"sheet": (300, "fairface"), "chart": (20, None)})
    first = written()
    assert any(name.endswith(".png") for name in first)
    assert written() == first


def test_no_path_and_no_name_of_this_machine_is_written(written, analysed_experiment, workspace):
    host = socket.gethostname()
    command = (
        f"slicebench run experiment=spotlight/fairface --import-path /home/somebody/code paths.results={workspace}/x"
    )
    analysed_experiment(
        "spotlight/fairface",
        [{**OBJECTIVES[0], "group": f"in {workspace}/x"}],
        {"slices": (20, None)},
        command=f"{command} +method.note={host}",
        refused=[{"overrides": "method=george", "reason": f"{workspace}/data/fairface lacks (/mnt/a/b.csv) on {host}"}],
        notes=["read from '/mnt/data'; see https://example.org/a/b and conf/scale, 1/2 or Sci/Tech"],
    )
    files = written()
    for text in (content.decode() for name, content in files.items() if not name.endswith(".png")):
        assert str(workspace) not in text
        assert not re.search(r"/(home|mnt|tmp|root|work)\b", text)
        assert not re.search(rf"\b{re.escape(host)}\b", text)
    content = content_of(files, "spotlight/fairface")
    assert content["notes"] == ["read from 'data'; see https://example.org/a/b and conf/scale, 1/2 or Sci/Tech"]
    assert content["command"].endswith("--import-path code paths.results=x +method.note=HOST")
    assert content["refused"][0]["reason"] == "fairface lacks (b.csv) on HOST"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("--folder=/a/b/c.csv, d", "--folder=c.csv, d"),
        ("/data", "data"),
        ("[/a/b, '/c/d']", "[b, 'd']"),
        ("a/b ../c ~/d 3 / 4 </b>", "a/b ../c ~/d 3 / 4 </b>"),
        ({"a": ["/b/c", 1, None]}, {"a": ["c", 1, None]}),
    ],
)
def test_of_an_absolute_path_the_last_name_stays(text, kept):
    assert portable(text) == kept


def test_pictures_of_examples_are_copied_only_where_they_may_be_passed_on(written, analysed_experiment):
    pictures = {"faces": (20, "fairface"), "films": (20, "movielens"), "chart": (20, None)}
    analysed_experiment("spotlight/fairface", OBJECTIVES, pictures)
    files = written()
    copied = {name for name in files if name.startswith("results/spotlight/fairface/")}
    assert {Path(name).name for name in copied} == {"faces.png", "chart.png"}
    content = content_of(files, "spotlight/fairface")
    assert content["withheld"] == ["What films shows."]
    assert content["pictures"][0] == {
        "file": "faces.png",
        "caption": "What faces shows.",
        "attribution": ATTRIBUTION["fairface"],
    }
    text = section_of(files, "spotlight/fairface")
    assert "CC BY 4.0" in text
    assert "- not passed on: What films shows." in text


@pytest.mark.parametrize(
    ("dataset", "names", "may"),
    [
        ("fairface", ["fairface slice_size=100"], True),
        ("chest_xray", ["chest_xray", "adult"], True),
        ("digits", ["digits"], True),
        ("imagenet", ["imagenet layout=nips2017 slice_size=20"], True),
        ("imagenet", ["imagenet slice_size=20"], False),
        ("imagenet", ["imagenet layout=nips2017", "imagenet"], False),
        ("imagenet", ["imagenet layout=nips2017_other"], False),
        ("imagenet", ["imagenet folder=mine layout=nips2017"], False),
        ("imagenet", ["fairface"], False),
        ("imagenet_superclass", ["imagenet_superclass layout=nips2017"], False),
        ("covid_xray", ["covid_xray"], False),
        ("fairface", ["fairface folder=mine"], False),
        ("fairface", [None], False),
    ],
)
def test_who_may_be_shown(dataset, names, may):
    assert may_be_shown(dataset, pd.DataFrame({"dataset": names})) is may


def test_pictures_are_made_to_fit(written, analysed_experiment):
    folder = analysed_experiment("spotlight/fairface", OBJECTIVES, {"large": (600, "fairface"), "small": (100, None)})
    assert (folder / "analysis" / "large.png").stat().st_size > LARGEST
    files = written()
    assert len(files["results/spotlight/fairface/large.png"]) <= LARGEST
    with Image.open(TO / "spotlight/fairface/large.png") as picture:
        assert 200 < picture.width == picture.height < 600
    before = (folder / "analysis" / "small.png").read_bytes()
    assert files["results/spotlight/fairface/small.png"] == before


def test_tables_are_not_copied_and_what_is_no_longer_made_is_removed(written, analysed_experiment):
    folder = analysed_experiment("spotlight/fairface", OBJECTIVES, {"old": (20, None)})
    (folder / "analysis" / "slices-texts.csv").write_text("text\n")
    assert "results/spotlight/fairface/old.png" in written()
    analysed_experiment("spotlight/fairface", OBJECTIVES, {"new": (20, None)})
    names = set(written())
    assert not [name for name in names if "old" in name or name.endswith(".csv")]
    assert "results/spotlight/fairface/new.png" in names


def test_full_scale_goes_before_a_smaller_one(written, analysed_experiment):
    for scale in ("here", "full"):
        analysed_experiment("spotlight/fairface", OBJECTIVES, scale=scale)
    assert content_of(written(), "spotlight/fairface")["scale"] == "full"


def test_what_is_no_experiment_of_a_paper_is_left_out(analysed_experiment, capsys):
    folder = analysed_experiment("somebody/mine", OBJECTIVES)
    assert analysed(folder) == {}
    assert "somebody/mine is no experiment of a paper" in capsys.readouterr().err


def test_what_another_machine_measured_stays(written, analysed_experiment):
    folder = analysed_experiment("spotlight/fairface", OBJECTIVES, {"chart": (20, None)})
    first = written()
    folder.rename("elsewhere")
    assert written() == first


def test_somebody_elses_readme_is_not_overwritten(written, analysed_experiment):
    analysed_experiment("spotlight/fairface", OBJECTIVES)
    TO.parent.mkdir()
    readme = TO.parent / "README.md"
    readme.write_text("# Mine\n")
    with pytest.raises(InvalidInput, match="was not written by this program"):
        written()
    assert readme.read_text() == "# Mine\n"


def test_a_finding_about_an_unknown_experiment_is_refused(written):
    TO.mkdir(parents=True)
    (TO / "findings.yaml").write_text("spotlight/fairfaces: text\n")
    with pytest.raises(
        InvalidInput, match="no experiment is called 'spotlight/fairfaces'; the nearest are spotlight/fair"
    ):
        written()


def test_a_mistake_is_explained_in_one_line(workspace, analysed_experiment, capsys):
    folder = analysed_experiment("spotlight/fairface", OBJECTIVES, {"chart": (20, None)})
    (folder / "analysis" / "chart.png").unlink()
    with pytest.raises(typer.Exit) as stopped:
        main(OUTPUTS, TO)
    assert stopped.value.exit_code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "chart.png is missing: slicebench collect outputs/experiments/spotlight/fairface-here --analyse" in line


def test_notes_by_hand_name_experiments_that_there_are():
    path = Path(experiments.__path__[0]) / "results" / "findings.yaml"
    assert set(yaml.safe_load(path.read_text())) <= set(shown_experiments())


REPRODUCE = Path(experiments.__path__[0]).parent / "scripts" / "reproduce.sh"
STUBS = {
    "slicebench": (
        'if [[ $1 == list ]]; then printf "demo  Digits\\nspotlight/a  A\\ninfembed/b  B\\n"; exit; fi\n'
        'echo "$*" >> "$CALLS"\n'
        '[[ $2 != experiment=$FAILING ]] || exit "$CODE"'
    ),
    "python": 'echo "python $*" >> "$CALLS"',
}


@pytest.fixture
def reproduce(tmp_path, monkeypatch):
    """Run the script with programs that only note how they were called: (exit code, calls, standard error)."""
    for name, text in STUBS.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{text}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))

    def run(*arguments, failing="", code=2):
        own = {**os.environ, "FAILING": failing, "CODE": str(code)}
        done = subprocess.run(["bash", str(REPRODUCE), *arguments], capture_output=True, text=True, env=own)
        calls = tmp_path / "calls"
        return done.returncode, calls.read_text().splitlines() if calls.exists() else [], done.stderr

    return run


WRITING = "python -m experiments.results"


def test_all_experiments_of_papers_are_run_and_then_written(reproduce):
    code, calls, _ = reproduce()
    assert code == 0
    assert calls == ["run experiment=spotlight/a", "run experiment=infembed/b", WRITING]


def test_some_experiments_at_a_scale(reproduce):
    assert reproduce("infembed/b", "--scale", "here")[1] == ["run experiment=infembed/b scale=here", WRITING]


def test_what_fails_stops_no_other_and_is_named_at_the_end(reproduce):
    code, calls, said = reproduce(failing="spotlight/a")
    assert code == 1
    assert calls == ["run experiment=spotlight/a", "run experiment=infembed/b", WRITING]
    assert said.splitlines()[-1] == "not finished, see above: spotlight/a"


def test_an_interrupt_stops_everything(reproduce):
    code, calls, _ = reproduce(failing="spotlight/a", code=130)
    assert (code, calls) == (130, ["run experiment=spotlight/a"])


def test_an_unknown_option_says_how_it_is_called(reproduce):
    code, calls, said = reproduce("--sclae=here")
    assert (code, calls) == (2, [])
    assert "scripts/reproduce.sh [--scale here|full] [NAME ...]" in said
