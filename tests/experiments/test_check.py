"""What `slicebench check` says of data sets that are there, half there, missing or damaged."""

import json
import os
import sys
from pathlib import Path

import pytest

import conf

LOADER = '''
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import torch

from experiments.contract import Dataset, Split
from experiments.reading.sources import Absent, Download, Partial, Source
from methods.errors import InvalidInput


def dataset(name, rows, **more):
    ids = tuple(f"{i:06d}" for i in range(len(rows)))
    labels = torch.tensor([i % 2 for i in range(len(rows))])
    split = Split(ids, rows, labels, pd.DataFrame(index=pd.Index(ids, name="id")))
    return Dataset(name, "text", ("no", "yes"), {"test": split}, "x", **more)


@dataclass(frozen=True)
class Lines:
    """Lines of a file, of which there should be 2,000."""

    folder: str = "lines"
    n_lines: int = 2000
    partial: bool = False

    @property
    def source(self):
        downloads = (Download("https://example.org/lines.csv", "lines.csv"),)
        return Source(self.folder, "Get lines.csv from example.org.", "CC0", downloads)

    def load(self, root: Path, seed: int):
        rows = self.source.path(root, "lines.csv").read_text().split()
        if "damaged" in rows:
            raise InvalidInput("lines.csv line 3 is damaged: get it again")
        if len(rows) < self.n_lines and not self.partial:
            raise Partial(f"{self.n_lines - len(rows):,} of {self.n_lines:,} lines are missing")
        return dataset("lines", rows, notes=("the last line is odd",) if len(rows) % 2 else ())


@dataclass(frozen=True)
class Layouts:
    """Two layouts."""

    layout: Literal["web", "[paper]"] = "web"

    @property
    def source(self):
        return Source("layouts", f"Get {self.layout}.csv from a library.", "CC0")

    def load(self, root: Path, seed: int):
        return dataset("layouts", self.source.path(root, f"{self.layout}.csv").read_text().split())


@dataclass(frozen=True)
class Own:
    """A file of the user's."""

    path: str = ""
    label: str = "label"

    def load(self, root: Path, seed: int):
        if not Path(self.path).is_file():
            raise Absent(f"{self.path} is missing")
        return dataset("own", Path(self.path).read_text().split(self.label))


@dataclass(frozen=True)
class Bug:
    """One of ours."""

    def load(self, root: Path, seed: int):
        return {}["nothing"]
'''
YAMLS = {
    "lines": "_target_: check_loaders.Lines\nn_lines: 2000\npartial: false\nslice_size: 50\nn_components: 10\n",
    "layouts": "_target_: check_loaders.Layouts\nlayout: web\n",
    "own": "_target_: check_loaders.Own\npath: ???\nlabel: label\n",
}


@pytest.fixture
def root(workspace, monkeypatch):
    """A data root, empty; the data sets are those of this file."""
    (workspace / "modules").mkdir()
    (workspace / "modules" / "check_loaders.py").write_text(LOADER)
    (workspace / "conf" / "dataset").mkdir(parents=True)
    for name, text in YAMLS.items():
        (workspace / "conf" / "dataset" / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(conf, "__path__", [str(workspace / "conf")])
    monkeypatch.syspath_prepend(workspace / "modules")
    monkeypatch.delitem(sys.modules, "check_loaders", raising=False)
    monkeypatch.setenv("SLICEBENCH_DATA", str(workspace / "data"))
    return workspace / "data"


@pytest.fixture
def check(slicebench):
    """The findings on data sets, and the exit code."""

    def call(*arguments):
        done = slicebench("check", *arguments, "--json")
        assert done.exit_code in (0, 1), done.output
        findings = {line["what"]: line for line in json.loads(done.stdout)}
        return {what: line for what, line in findings.items() if what.startswith("dataset ")}, done.exit_code

    return call


def place(path, n_lines, last=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([f"line-{i}" for i in range(n_lines)] + [last]))


def test_a_data_set_that_is_there_is_found_with_its_rows_and_notes(root, check):
    place(root / "lines" / "lines.csv", 2001)
    found, code = check("dataset=lines")
    assert found == {
        "dataset lines": {
            "what": "dataset lines",
            "state": "found",
            "note": "2,001 test; the last line is odd",
            "rows": {"test": 2001},
        }
    }
    assert code == 0


def test_a_data_set_that_is_missing_says_how_to_get_it(root, check):
    found, code = check("dataset=lines")
    (line,) = found.values()
    assert (line["state"], line["rows"], code) == ("absent", {}, 1)
    for said in (
        f"{root}/lines/lines.csv is missing",
        "Get lines.csv from",
        f"into {root}/lines",
        "slicebench fetch lines",
    ):
        assert line["note"].count(said) == 1


def test_half_a_data_set_is_partial_with_what_there_is_and_what_is_missing(root, check):
    place(root / "lines" / "lines.csv", 1500)
    found, code = check("dataset=lines")
    (line,) = found.values()
    assert (line["state"], line["rows"], code) == ("partial", {"test": 1500}, 1)
    assert line["note"].startswith("1,500 test; 500 of 2,000 lines are missing; ")
    assert line["note"].count("dataset.partial=true") == 1


def test_half_a_data_set_that_is_asked_for_as_such_is_found(root, check):
    place(root / "lines" / "lines.csv", 1500)
    found, code = check("dataset=lines", "dataset.partial=true")
    assert (found["dataset lines"]["state"], code) == ("found", 0)


def test_settings_are_passed_on(root, check):
    place(root / "lines" / "lines.csv", 10)
    found, _ = check("dataset=lines", "dataset.n_lines=10")
    assert found["dataset lines"]["rows"] == {"test": 10}


@pytest.mark.parametrize("how", ["by the loader", "by the system"])
def test_damaged_data_is_no_missing_data(root, check, how):
    if how == "by the loader":
        place(root / "lines" / "lines.csv", 2000, last="damaged")
    else:
        (root / "lines" / "lines.csv").mkdir(parents=True)
    found, code = check("dataset=lines")
    assert (found["dataset lines"]["state"], code) == ("damaged", 1)
    assert "get it again" in found["dataset lines"]["note"] or "move it away" in found["dataset lines"]["note"]


PARTS = """
from dataclasses import dataclass
from check_loaders import Path, Source, dataset
from experiments.reading.division import divide


@dataclass(frozen=True)
class Parts:
    folder: str = "parts"
    n_train: int = 2

    @property
    def source(self):
        return Source(self.folder, "Get one.csv and the folder two/, or three.csv.", "CC0")

    def load(self, root, seed):
        paths = [self.source.path(root, name) for name in ("one.csv", "two")]
        rows = paths[0].read_text().split()
        divide(len(rows), {"train": self.n_train}, "test", seed)
        return dataset("parts", rows)
"""


@pytest.fixture
def parts(root, workspace):
    """A data set of two parts, and its folder."""
    (workspace / "modules" / "check_parts.py").write_text(PARTS)
    (workspace / "conf" / "dataset" / "parts.yaml").write_text("_target_: check_parts.Parts\nn_train: 2\n")
    sys.modules.pop("check_parts", None)
    return root / "parts"


@pytest.mark.parametrize(
    ("there", "state"), [("one.csv", "partial"), ("two", "partial"), ("four.csv", "absent"), (".fetch", "absent")]
)
def test_what_lacks_one_of_its_files_is_partial_and_others_files_are_none_of_it(parts, check, there, state):
    place(parts / there, 4)
    found, code = check("dataset=parts")
    assert (found["dataset parts"]["state"], code) == (state, 1)
    assert (
        f"{parts}/{'two' if there == 'one.csv' else 'one.csv'} is missing. Get one.csv"
        in found["dataset parts"]["note"]
    )


def test_a_wrong_setting_is_no_damage(parts, slicebench, check):
    place(parts / "one.csv", 4)
    (parts / "two").mkdir()
    done = slicebench("check", "dataset=parts", "dataset.n_train=4")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].endswith("train 4 of 4 examples leave none for test: ask for fewer")


def test_where_the_data_are_too_few_for_our_own_setting_the_others_are_still_checked(parts, check):
    place(parts / "one.csv", 2)
    (parts / "two").mkdir()
    found, _ = check()
    assert found["dataset parts"]["state"] == "damaged"
    assert "dataset lines" in found


def test_each_layout_has_a_line_and_any_of_them_will_do(root, check):
    place(root / "layouts" / "[paper].csv", 4)
    found, code = check("dataset=layouts")
    assert {what: line["state"] for what, line in found.items()} == {
        "dataset layouts layout=web": "absent",
        "dataset layouts layout=[paper]": "found",
    }
    assert code == 0
    assert "Get web.csv from a library." in found["dataset layouts layout=web"]["note"]


def test_one_layout_can_be_asked_for(root, check):
    place(root / "layouts" / "[paper].csv", 4)
    found, code = check("dataset=layouts", "dataset.layout=web")
    assert list(found) == ["dataset layouts layout=web"]
    assert code == 1


def test_all_that_can_be_got_is_listed_and_nothing_missing_is_an_error(root, check):
    found, code = check()
    assert list(found) == ["dataset layouts layout=web", "dataset layouts layout=[paper]", "dataset lines"]
    assert code == 0


def test_several_can_be_asked_for_and_all_must_be_there(root, check):
    place(root / "lines" / "lines.csv", 2000)
    assert check("dataset=lines", "dataset=layouts")[1] == 1
    place(root / "layouts" / "web.csv", 2)
    assert check("dataset=lines", "dataset=layouts")[1] == 0


def test_the_users_own_files_are_checked_when_they_are_named(root, check, workspace):
    (workspace / "my file.csv").write_text("a,b,c,d")
    found, code = check("dataset=own", "dataset.path=my file.csv", "dataset.label=','")
    assert (found["dataset own"]["rows"], code) == ({"test": 4}, 0)
    found, code = check("dataset=own", "dataset.path=nowhere.csv")
    assert (found["dataset own"]["state"], found["dataset own"]["note"], code) == (
        "absent",
        "nowhere.csv is missing",
        1,
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["dataset=lnies"], "no dataset is called 'lnies'; the nearest is lines"),
        (["dataset=lines", "dataset.n_line=3"], "dataset has no setting 'n_line'; the nearest is n_lines"),
        (["dataset=lines", "dataset.n_lines=few"], "dataset.n_lines is 'few', expected a whole number"),
        (["dataset=layouts", "dataset.layout=disc"], "dataset.layout is 'disc', expected web or [paper]"),
        (["dataset=own"], "dataset.path is missing: set it on the command line, dataset.path=..."),
        (["dataset.partial=true"], "dataset.partial is a setting of no data set: say which one with dataset=NAME"),
        (["lines"], "'lines' cannot be checked, expected dataset=NAME with one of layouts, lines, own"),
        (["model=resnet"], "'model=resnet' cannot be checked"),
        (["dataset=lines,own"], "'dataset=lines,own' is not one setting"),
        (["dataset=["], "no viable alternative"),
    ],
)
def test_a_mistake_is_explained_in_one_line(root, slicebench, arguments, says):
    done = slicebench("check", *arguments)
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert says in line


def test_what_a_yaml_takes_from_the_rest_of_a_config_is_left_to_the_loader(root, check, workspace, monkeypatch):
    monkeypatch.setenv("LINES", "elsewhere")
    yaml = "_target_: check_loaders.Lines\nfolder: ${oc.env:LINES}\nn_lines: ${evaluation.n}\npartial: ${seeds.x}\n"
    (workspace / "conf" / "dataset" / "lines.yaml").write_text(yaml)
    place(root / "elsewhere" / "lines.csv", 2000)
    assert check("dataset=lines")[0]["dataset lines"]["rows"] == {"test": 2000}


def test_an_error_of_ours_is_not_hidden(root, slicebench, workspace):
    (workspace / "conf" / "dataset" / "bug.yaml").write_text("_target_: check_loaders.Bug\n")
    assert isinstance(slicebench("check", "dataset=bug").exception, KeyError)


def test_the_table_shows_every_word(root, slicebench):
    place(root / "lines" / "lines.csv", 1500)
    text = slicebench("check").stdout
    assert "dataset layouts layout=[paper]" in text
    assert "1,500 test; 500 of 2,000 lines are missing" in text


def test_the_machine_has_its_lines(root, slicebench, workspace, monkeypatch):
    hub = workspace / "hub"
    (hub / "models--openai--clip" / "snapshots" / "abc").mkdir(parents=True)
    (hub / "models--openai--clip" / "snapshots" / "abc" / "config.json").touch()
    (hub / "models--broken--off" / "snapshots" / "abc").mkdir(parents=True)
    (hub / "models--broken--off" / "snapshots" / "abc" / "weights").symlink_to("nothing")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    monkeypatch.setenv("TORCH_HOME", str(workspace / "torch"))
    (workspace / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    (workspace / "torch" / "hub" / "checkpoints" / "resnet18.pth").touch()
    lines = {line["what"]: line for line in json.loads(slicebench("check", "--json").stdout)}
    assert lines["weights of Hugging Face"]["note"] == f"{hub}: openai/clip"
    assert lines["weights of torch"]["note"].endswith("checkpoints: resnet18.pth")
    assert lines["data root"]["state"] == "absent"
    assert {"cache", "GPU", "SLURM", "cores", "packages"} <= set(lines)


def test_no_data_root_is_named_data(root, slicebench, workspace, monkeypatch):
    monkeypatch.delenv("SLICEBENCH_DATA")
    lines = {line["what"]: line for line in json.loads(slicebench("check", "--json").stdout)}
    assert lines["data root"]["note"] == f"{workspace / 'data'} (SLICEBENCH_DATA)"


def test_all_of_ours_have_a_state(slicebench, workspace, monkeypatch):
    monkeypatch.setenv("SLICEBENCH_DATA", str(workspace / "nothing"))
    done = slicebench("check", "--json")
    assert done.exit_code == 0, done.exception
    lines = [line for line in json.loads(done.stdout) if line["what"].startswith("dataset ")]
    assert "dataset digits" in [line["what"] for line in lines]
    for line in lines:
        assert line["state"] == ("found" if line["rows"] else "absent"), line
        assert line["note"]
    assert os.listdir(Path.cwd()) == []
