import base64
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from experiments import tracking
from experiments.cli import app
from experiments.finished import FinishedRun
from experiments.loading import load_dataset
from experiments.record import Record
from experiments.settings import settings_of as checked
from experiments.tracking import Forgiving

RUN = ("corruption=relabel_subclass", "corruption.n_seeds=1", "method=highest_loss")
SECRET = "0123456789abcdef0123456789abcdef01234567"
SWEEP = ("--multirun", *RUN[:2], "method=random,highest_loss", "tracking=offline", "compute.threads=1")


@cache
def records(folder):
    """What Weights & Biases' own reader finds in a run folder, by type."""
    (offline,) = folder.glob("wandb/offline-run-*")
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", offline]
    done = subprocess.run(command, capture_output=True, text=True)
    found = {}
    for line in done.stdout.splitlines():
        record = json.loads(line)
        found.setdefault(record["type"], []).append(record.get(record["type"]))
    return found


def logged(folder):
    (row,) = records(folder)["history"]
    return row["item"]


def table(folder, name):
    (offline,) = folder.glob("wandb/offline-run-*")
    content = json.loads((offline / "files" / logged(folder)[f"{name}.path"]).read_text())
    return pd.DataFrame(content["data"], columns=content["columns"])


def bytes_below(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The workspace of a sweep over two methods that was tracked, by a user with a key."""
    workspace = tmp_path_factory.mktemp("sweep")
    (workspace / "home").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        patch.setattr("sys.argv", ["slicebench"])
        patch.setenv("WANDB_API_KEY", SECRET)
        patch.setenv("HOME", str(workspace / "home"))
        done = CliRunner().invoke(app, ["run", *SWEEP])
    assert done.exit_code == 0, done.output
    return workspace


@pytest.fixture
def run(sweep):
    """The folder of one of its runs."""
    (folder,) = sweep.glob("outputs/digits/highest_loss-*")
    return folder


def test_all_that_is_written_lies_below_the_run_folders(sweep):
    assert {path.name for path in sweep.iterdir()} == {"home", "outputs"}
    assert {path.name for path in (sweep / "outputs").iterdir()} == {"digits", "sweeps"}
    assert {path.name for path in (sweep / "home").rglob("*") if path.is_file()} <= {"nothing"}


def test_settings_names_and_the_stamp_are_told(run):
    config = records(run)["run"][0]["config"]["update"]
    definition = json.loads((run / "run.json").read_text())["definition"]
    assert {name: config[name] for name in definition} == definition
    assert config["names"]["dataset"] == "digits"
    assert config["names"]["corruption"] == "relabel_subclass n_seeds=1"
    assert {"git", "device", "threads", "python"} <= set(config)


def test_scores_seconds_and_the_whole_split_are_told(run):
    told, found = logged(run), FinishedRun.read(run)
    scores = found.scores.query("protocol == 'worst_slice' and metric == 'precision_at_k' and k == 10")
    assert told["worst_slice/precision_at_k/10"] == pytest.approx(scores["value"].mean())
    assert {f"seconds/{stage}" for stage in found.content["seconds"]} <= set(told)
    assert told["split/accuracy"] == pytest.approx(found.examples["correct"].mean())
    assert told["split/mean_loss"] == pytest.approx(found.examples["loss"].mean())
    assert (told["n_problems"], told["n_refused"]) == (10, 0)


def test_each_slice_has_a_row_with_its_numbers_and_matched_scores(run):
    rows, found = table(run, "slices"), FinishedRun.read(run)
    assert list(rows["problem"]) == list(found.problems)  # one slice each
    assert set(rows["slice"]) == {1}
    first = found.scores[found.scores["problem"] == found.problems[0]].astype({"protocol": object})
    for name, wanted in {
        "size": first.query("protocol.isna() and metric == 'size'"),
        "gap_low": first.query("protocol.isna() and metric == 'gap_low'"),
        "best_average_precision/f1": first.query("protocol == 'best_average_precision' and metric == 'f1'"),
    }.items():
        assert rows[name][0] == pytest.approx(wanted["value"].item()), name
    assert set(rows["true_slice"]) == {0}


def test_labels_and_predictions_of_slices_stand_beside_the_whole_split(run):
    rows, found = table(run, "distributions"), FinishedRun.read(run)
    members = found.members(found.problems[0])[:, 0]
    predictions = rows[rows["of"] == "prediction"].set_index("class")
    shares = found.examples["prediction"][members].value_counts(normalize=True)
    assert predictions["share"].to_dict() == pytest.approx(shares.to_dict())
    everywhere = found.examples["prediction"].value_counts(normalize=True)
    assert predictions["share_of_split"].to_dict() == pytest.approx({name: everywhere[name] for name in shares.index})


def test_the_slices_are_an_artifact_that_is_sent_from_where_it_lies(run):
    (artifact,) = [one for one in records(run)["artifact"] if one["type"] == "slices"]
    assert artifact["name"] == f"slices-{run.name}"
    files = {one["path"]: Path(one["local_path"]) for one in artifact["manifest"]["contents"]}
    assert files == {name: run / name for name in ("scores.parquet", "parts/000.npz")}


def test_no_example_is_shown_unless_it_is_asked_for(run):
    assert not [path for path in run.rglob("*") if path.suffix in (".png", ".jpg")]
    assert "texts" not in table(run, "slices")


def test_neither_key_nor_command_line_is_kept(sweep, run):
    written = bytes_below(sweep)
    for secret in (SECRET.encode(), base64.b64encode(f"api:{SECRET}".encode())):
        assert secret not in written
    assert "environment" not in records(run)


def test_runs_of_a_sweep_are_one_group_of_its_key_and_job_types_are_methods(sweep):
    (manifest,) = (sweep / "outputs" / "sweeps").iterdir()
    told = {records(folder)["run"][0]["run_id"]: records(folder)["run"][0] for folder in sweep.glob("outputs/digits/*")}
    assert {one["run_group"] for one in told.values()} == {f"sweep {manifest.stem}"}
    assert {name.partition("-")[0]: one["job_type"] for name, one in told.items()} == {
        "random": "random",
        "highest_loss": "highest_loss",
    }


@pytest.mark.parametrize(
    ("overrides", "group"),
    [
        ([], "digits"),
        (["corruption=relabel_subclass", "corruption.noise=0.05"], "digits relabel_subclass noise=0.05"),
        (["experiment=demo"], "demo"),
        (["experiment=spotlight/synthetic", "scale.name=here", "dataset=digits"], "spotlight/synthetic here"),
    ],
)
def test_runs_are_grouped_by_experiment_else_by_data_and_corruption(workspace, overrides, group):
    from experiments.wandb_run import group_of

    settings = checked(overrides)
    assert group_of(settings, Record.planned(settings, load_dataset(settings))) == group


def test_a_finished_run_is_not_told_twice(sweep, monkeypatch):
    monkeypatch.chdir(sweep)
    monkeypatch.setattr("sys.argv", ["slicebench"])
    done = CliRunner().invoke(app, ["run", *SWEEP])
    assert "2 done before, skipped" in done.stderr
    folders = list(sweep.glob("outputs/digits/*"))
    assert [len(list(folder.glob("wandb/offline-run-*"))) for folder in folders] == [1, 1]


@pytest.fixture
def own_outputs(workspace):
    """A file with outputs of some model, and pictures and texts of its examples."""
    generator = np.random.default_rng(0)
    (workspace / "pictures").mkdir()
    for index in range(40):
        noise = generator.integers(0, 256, (12, 9, 3), dtype=np.uint8)
        Image.fromarray(noise).save(workspace / "pictures" / f"{index}.png")
    np.savez(
        workspace / "outputs.npz",
        embeddings=generator.normal(size=(40, 4)).astype(np.float32),
        labels=np.array(["cat", "dog"] * 20),
        logits=generator.normal(size=(40, 2)).astype(np.float32),
        images=np.array([f"pictures/{index}.png" for index in range(40)]),
        texts=np.array([f"the secret diary of example {index}" for index in range(40)]),
    )
    return "dataset=predictions", "dataset.path=outputs.npz", "model=precomputed"


def test_pictures_and_texts_are_sent_only_where_media_is_true(slicebench, own_outputs):
    for media in ("false", "true"):
        overrides = (f"paths.results=media_{media}", "method=random", "method.size=3")
        done = slicebench("run", *own_outputs, *overrides, "tracking=offline", f"tracking.media={media}")
        assert done.exit_code == 0, done.stderr
        assert "tracking stopped" not in done.stderr
    kept, sent = (next(Path(f"media_{media}").glob("predictions/random-*")) for media in ("false", "true"))
    assert b"secret diary" not in bytes_below(kept / "wandb")
    assert not list(kept.rglob("*.png"))

    texts = table(sent, "slices")["texts"]
    found = FinishedRun.read(sent)
    ids = found.examples["id"][found.members()[:, 0]]
    assert sorted(texts[0].splitlines()) == sorted(found.examples.set_index("id").loc[ids, "text"])
    pictures = logged(sent)
    assert pictures["pictures/slice_1.count"] == 3
    assert pictures["pictures/random.count"] == 8
    assert any(
        caption.startswith(("cat → dog, loss", "dog → cat, loss")) for caption in pictures["pictures/random.captions"]
    )
    (folder,) = sent.glob("wandb/offline-run-*")
    with Image.open(folder / "files" / pictures["pictures/slice_1.filenames"][0]) as picture:
        assert picture.size == (128, 128)


def test_without_tracking_nothing_is_written_and_wandb_is_not_imported(workspace):
    program = "import sys; from experiments.cli import app; app(sys.argv[1:], standalone_mode=False)"
    check = "; assert not [name for name in sys.modules if name.split('.')[0] == 'wandb']"
    command = [sys.executable, "-c", program + check, "run", *RUN, "tracking=none", "compute.threads=1"]
    done = subprocess.run(command, cwd=workspace, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(Path("outputs").rglob("*wandb*"))


@pytest.mark.parametrize("where", ["wandb.login", "wandb.init"])
def test_where_the_server_does_not_answer_runs_are_tracked_offline(slicebench, monkeypatch, where):
    import wandb

    init = wandb.init

    def unreachable(*_, mode="online", **others):
        if mode == "online":
            raise ConnectionError("no route to host")
        return init(mode=mode, **others)

    tracking._is_logged_in.cache_clear()
    monkeypatch.setattr("wandb.login", lambda **_: True)
    monkeypatch.setattr(where, unreachable)
    done = slicebench("run", *RUN, "tracking=wandb")
    tracking._is_logged_in.cache_clear()
    assert done.exit_code == 0
    assert done.stderr.count("so runs are tracked offline (ConnectionError: no route to host)") == 1
    assert len(list(Path("outputs").rglob("offline-run-*/*.wandb"))) == 1


class Failing:
    def __init__(self, when):
        self.when, self.calls = when, []

    def start(self):
        self._call("start")
        return self

    def log(self, run, summary):
        self._call("log")

    def close(self, failed):
        self._call("close")

    def _call(self, what):
        self.calls.append(what)
        if what == self.when:
            raise OSError("no space left on device")


@pytest.mark.parametrize("when", ["start", "log", "close"])
def test_a_failing_tracker_is_said_once_and_never_raises(when, capsys):
    failing = Failing(when)
    tracker = Forgiving(failing.start)
    tracker.log(None, {"f1": 1.0})
    tracker.log(None, {"f1": 1.0})
    tracker.close(failed=False)
    assert capsys.readouterr().err.count("tracking stopped (OSError: no space left on device)") == 1
    assert failing.calls[-1] == when, "it was called again after it had failed"


@pytest.mark.parametrize("what", ["experiments.tracking.Wandb.start", "experiments.wandb_run.slices_table"])
def test_a_run_outlives_its_tracker(slicebench, monkeypatch, what):
    monkeypatch.setattr(what, lambda *_: 1 / 0)
    done = slicebench("run", *RUN, "tracking=wandb")
    assert done.exit_code == 0
    assert "tracking stopped (ZeroDivisionError" in done.stderr
    (path,) = Path("outputs").rglob("run.json")
    assert json.loads(path.read_text())["status"] == "done"


@pytest.fixture(autouse=True)
def _environment():
    """Tracking points Weights & Biases at the run folder by environment variables; other tests must not see them."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
