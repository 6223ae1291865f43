"""What `slicebench run experiment=NAME` asks for, and what becomes of it when runs fail, are refused or are done."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from experiments.finished import FinishedRun
from experiments.listing import items
from experiments.prepared import Analysis, Order, Prepared, orders, read_prepared
from experiments.rerun import rerun
from experiments.sweeper import Sweep
from methods.errors import InvalidInput

HERE = "scale=here"


def order_of(*arguments):
    (order,) = orders(arguments)
    return order


def arms_of(*arguments):
    return order_of(*arguments).sweep.arms


def settings_in(arm):
    return dict(word.split("=", 1) for word in arm)


def of(key, arms):
    """The values of one setting, in the order of the arms."""
    return [settings_in(arm).get(key) for arm in arms]


# what is asked for


def test_an_experiment_is_a_sweep_for_each_data_set_of_each_arm():
    asked = arms_of("experiment=spotlight/domino", HERE)
    arms = read_prepared("spotlight/domino").arms["here"]
    assert len(asked) == len(arms)
    assert all(" ".join(arm) in " ".join(full) for arm, full in zip(arms, asked, strict=True))
    assert "," not in "".join(of("dataset", asked))


def test_a_sweep_says_of_which_experiment_and_scale_it_is_and_where_its_runs_go():
    order = order_of("experiment=spotlight/fairface", "scale=full")
    assert (order.scale, order.why) == ("full", "asked for")
    assert order.folder == Path("outputs/experiments/spotlight/fairface-full")
    assert order.sweep.results == order.folder
    for arm in order.sweep.arms:
        assert arm[:3] == (
            "experiment=spotlight/fairface",
            "scale.name=full",
            "paths.results=outputs/experiments/spotlight/fairface-full",
        )
        assert "scale=full/fairface" in arm


def test_an_arm_may_differ_between_scales():
    here, full = (arms_of("experiment=spotlight/fairface_sizes", f"scale={scale}") for scale in ("here", "full"))
    assert of("dataset.slice_size", here) == ["5,10,25,50,100,250,500"]
    assert of("dataset.slice_size", full) == ["11,22,55,110,219,548,1095"]


def test_a_data_set_that_is_the_same_at_both_scales_needs_no_settings_of_a_scale():
    assert of("scale", arms_of("experiment=spotlight/tabular", HERE)) == [None] * 4


def test_what_stands_in_is_known_before_anything_runs():
    here, full = (order_of("experiment=spotlight/imagenet", f"scale={scale}").stand_ins for scale in ("here", "full"))
    assert any("MobileNetV2" in one for one in here)
    assert full == ()


@pytest.mark.parametrize("wish", ["experiment=demo", "method=random", "--cfg"])
def test_what_has_no_arms_is_left_to_hydra(wish):
    assert orders([wish, "dataset=digits"]) == []


def test_several_experiments_are_asked_for_at_once():
    first, second = orders(["experiment=spotlight/squad,spotlight/tabular", HERE, "seeds.method=1"])
    assert [first.experiment.name, second.experiment.name] == ["spotlight/squad", "spotlight/tabular"]
    assert first.folder != second.folder
    for order in (first, second):
        assert all(f"experiment={order.experiment.name}" in arm for arm in order.sweep.arms)
        assert all(arm[-1] == "seeds.method=1" for arm in order.sweep.arms)


@pytest.mark.parametrize("paper", ["spotlight", "infembed"])
def test_a_paper_is_all_of_its_experiments(paper):
    asked = orders([f"experiment={paper}", HERE, "paths.results=elsewhere"])
    names = [item["name"] for item in items("experiments") if item["name"].startswith(f"{paper}/")]
    assert [order.experiment.name for order in asked] == names
    assert [order.folder for order in asked] == [Path("elsewhere") / name for name in names]
    both = orders([f"experiment={paper},{names[0]}", HERE])
    assert [order.experiment.name for order in both] == names


def test_options_and_the_launcher_are_not_those_of_single_runs():
    launcher = ("hydra/launcher=cpu", "hydra.launcher.partition=short")
    order = order_of("--config-dir=mine", "experiment=spotlight/squad", HERE, *launcher)
    assert order.options == ("--config-dir=mine", *launcher)
    assert order.sweep.arms == arms_of("experiment=spotlight/squad", HERE)


@pytest.mark.parametrize("names", ["demo,spotlight/squad", "spotlight/squad,demo"])
def test_an_experiment_without_arms_runs_by_itself(names):
    with pytest.raises(InvalidInput, match="experiment=demo has no arms of its own: run it by itself"):
        orders([f"experiment={names}", HERE])


@pytest.mark.parametrize("option", ["--multirun", "-m"])
def test_to_say_that_it_is_a_sweep_is_not_needed_and_does_no_harm(option):
    asked = order_of(option, "experiment=spotlight/squad", HERE)
    assert replace(asked, options=()).sweep.arms == arms_of("experiment=spotlight/squad", HERE)


# the scale


def test_a_scale_that_there_is_not_is_named_with_those_that_there_are():
    with pytest.raises(InvalidInput, match=r"no scale is called 'huge'.*here"):
        orders(["experiment=spotlight/squad", "scale=huge"])


def test_without_a_gpu_the_scale_is_here(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    order = order_of("experiment=spotlight/squad")
    assert (order.scale, order.why) == ("here", "this machine has no GPU")


def test_with_a_gpu_and_without_the_paper_s_data_the_scale_is_here(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("SLICEBENCH_DATA", str(tmp_path))
    order = order_of("experiment=spotlight/squad")
    assert order.scale == "here"
    assert order.why.startswith(f"squad: {tmp_path / 'squad/dev-v1.1.json'} is missing")
    assert order.folder == Path("outputs/experiments/spotlight/squad-here")


def test_with_a_gpu_and_all_data_the_scale_is_full(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("SLICEBENCH_DATA", str(tmp_path))
    order = order_of("experiment=infembed/coherence", "dataset=digits")  # which come with scikit-learn
    assert (order.scale, order.why) == ("full", "a GPU and all data are there")


def test_data_sets_that_are_not_asked_for_do_not_decide_the_scale(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("SLICEBENCH_DATA", str(tmp_path))
    order = order_of("experiment=infembed/coherence", "dataset=digits,chest_xray")
    assert order.why.startswith("chest_xray: ")


def test_suites_are_looked_for_where_there_is_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("SLICEBENCH_DATA", str(tmp_path))
    assert order_of("experiment=infembed/dcbench").scale in ("here", "full")


# what the user changes


def test_a_value_that_some_arm_has_chooses_the_arms_that_have_it():
    (arm,) = arms_of("experiment=spotlight/fairface", HERE, "method=george")
    assert (settings_in(arm)["method"], settings_in(arm)["method.n_slices"]) == ("george", "50")
    both = arms_of("experiment=spotlight/fairface", HERE, "method=random,spotlight")
    assert of("method", both) == ["spotlight", "random"]


def test_a_data_set_is_chosen_with_its_own_settings_of_the_scale():
    arms = arms_of("experiment=spotlight/clusters", HERE, "dataset=imagenet")
    assert of("dataset", arms) == ["imagenet"] * 2
    assert of("scale", arms) == ["here/imagenet"] * 2
    assert of("method", arms) == ["spotlight", "gmm"]


def test_two_choices_are_both_kept_to():
    arms = arms_of("experiment=spotlight/clusters", HERE, "dataset=imagenet,movielens", "method=gmm")
    assert of("dataset", arms) == ["imagenet", "movielens"]
    assert of("method.n_components", arms) == ["50", "20"]


def test_any_other_value_takes_the_place_of_what_arms_have_and_of_settings_that_would_not_fit():
    (arm,) = arms_of("experiment=spotlight/fairface", HERE, "method=kmeans")
    found = settings_in(arm)
    assert found["method"] == "kmeans"
    assert not any(key.startswith("method.") for key in found)


def test_a_setting_is_the_user_s_where_an_arm_has_it_and_only_there():
    arms = arms_of("experiment=spotlight/fairface", HERE, "method.steps=7")
    assert of("method.steps", arms) == ["7", None, None]
    assert all(" ".join(arm).count("method.steps=") <= 1 for arm in arms)


def test_a_setting_that_no_arm_has_comes_last_and_wins_over_the_scale():
    for arm in arms_of("experiment=spotlight/fairface", HERE, "dataset.slice_size=9"):
        assert arm[-1] == "dataset.slice_size=9"
        assert arm.index("scale=here/fairface") < arm.index("dataset=fairface")


def test_results_go_where_the_user_wants_them():
    order = order_of("experiment=spotlight/squad", HERE, "paths.results=elsewhere")
    assert order.folder == Path("elsewhere")
    assert of("paths.results", order.sweep.arms) == ["elsewhere"] * 2


def test_its_command_asks_for_the_same_again(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    order = order_of("experiment=spotlight/fairface", "method=spotlight,random", "seeds.method=1")
    command = "slicebench run experiment=spotlight/fairface scale=here method=spotlight,random seeds.method=1"
    assert order.sweep.command == command
    again = order_of(*command.split()[2:])
    assert replace(again, why=order.why) == order


# what becomes of it

ALONE = ("tracking=none", "compute.threads=1")
QUICK = "model.training.epochs=1"
SMALL = ("dataset.train_share=0.2", "dataset.validation_share=0.7", "model.channels=2", "model.hidden=8", QUICK)
RANDOM = ("dataset=digits", "method=random", "method.size=3,6")
REFUSED = ("dataset=digits", "method=domino", "method.n_components=5000")
WITHOUT_DATA = ("dataset=wine", "method=random", "model.hidden=[8]")


@pytest.fixture
def ordered(workspace, monkeypatch):
    """An experiment with these sweeps, and one analysis."""
    monkeypatch.setenv("SLICEBENCH_DATA", str(workspace / "no data"))

    def order(*sweeps):
        experiment = Prepared("own", {"here": (), "full": ()}, (Analysis("slices", {"most": 3}),), ("A note.",))
        arms = tuple(("paths.results=results", *_fitting(sweep), "scale.name=here", *sweep) for sweep in sweeps)
        sweep = Sweep(arms, "slicebench run experiment=own", Path("results"))
        return Order(experiment, "here", "asked for", Path("results"), (), (), sweep)

    return order


def _fitting(sweep):
    return (*ALONE, *SMALL) if "dataset=digits" in sweep else ALONE


def record():
    return json.loads(Path("results/experiment.json").read_text())


def analysed():
    return pd.read_parquet("results/analysis/numbers.parquet")


def test_all_runs_of_all_sweeps_belong_to_the_experiment_and_are_analysed(ordered, capsys):
    failed, n = rerun([ordered(RANDOM, ("dataset=digits", "method=highest_loss"))], dry_run=False)
    assert (failed, n) == ([], 3)
    assert "own: scale=here (asked for), results in results" in capsys.readouterr().err
    kept = record()
    assert [run.split("-")[0] for run in kept["runs"]] == ["digits/random", "digits/random", "digits/highest_loss"]
    assert (kept["experiment"], kept["scale"], kept["why"]) == ("own", "here", "asked for")
    assert (kept["missing"], kept["refused"], kept["notes"]) == ([], [], ["A note."])
    assert kept["analyses"] == [{"name": "slices", "options": {"most": 3}}]
    assert set(analysed()["method"]) == {"random", "highest_loss"}
    assert "A note." in Path("results/analysis/report.md").read_text()


def test_runs_of_other_settings_in_the_folder_do_not_belong_to_it(ordered):
    rerun([ordered(("dataset=digits", "method=random", "method.size=9"))], dry_run=False)
    rerun([ordered(RANDOM)], dry_run=False)
    assert len(record()["runs"]) == 2
    assert len(list(Path("results/digits").iterdir())) == 3
    sizes = {FinishedRun.read(Path("results") / run).definition["method"]["size"] for run in record()["runs"]}
    assert sizes == {3, 6}


def test_the_same_again_skips_what_is_done_and_analyses_again(ordered, capsys):
    rerun([ordered(RANDOM)], dry_run=False)
    first, numbers = record(), analysed()
    Path("results/analysis/numbers.parquet").unlink()
    capsys.readouterr()
    assert rerun([ordered(RANDOM)], dry_run=False) == ([], 2)
    assert "2 runs: 2 done before, skipped" in capsys.readouterr().err
    assert record() == first
    pd.testing.assert_frame_equal(analysed(), numbers)


def test_what_a_method_refuses_is_noted_and_the_rest_is_analysed(ordered):
    failed, n = rerun([ordered(RANDOM, REFUSED)], dry_run=False)
    assert (failed, n) == ([], 3)
    (refused,) = record()["refused"]
    assert "method=domino" in refused["overrides"]
    assert refused["reason"] == "n_components is 5000, expected at most 180, the number of examples"
    assert record()["missing"] == []
    assert set(analysed()["method"]) == {"random"}
    assert f"refused: {refused['overrides']}: {refused['reason']}" in Path("results/analysis/report.md").read_text()


def test_where_a_run_fails_the_analyses_wait_for_it(ordered, capsys):
    failed, n = rerun([ordered(WITHOUT_DATA, RANDOM, REFUSED)], dry_run=False)
    assert n == 4
    (failure,) = failed
    assert "dataset=wine" in failure.overrides
    assert "winequality-red.csv is missing" in failure.reason
    assert record()["missing"] == [failure.overrides]
    assert len(record()["runs"]) == 2  # those after it were not given up
    assert len(record()["refused"]) == 1
    assert not Path("results/analysis").exists()
    assert "own: 1 of 4 runs failed; analyses wait for them" in capsys.readouterr().err


def test_a_dry_run_computes_and_writes_nothing(ordered):
    assert rerun([ordered(RANDOM)], dry_run=True)[1] == 2
    assert not Path("results/experiment.json").exists()
    assert not Path("results/digits").exists()


# on the command line

REPORT = Path("outputs/experiments/infembed/coherence-here/analysis/report.md")


@pytest.fixture
def no_data(workspace, monkeypatch):
    monkeypatch.setenv("SLICEBENCH_DATA", str(workspace / "no data"))


def test_the_command_ends_well_where_all_runs_are_done(slicebench, no_data):
    done = slicebench("run", "experiment=infembed/coherence", HERE, "method=random", "dataset=digits", *SMALL)
    assert done.exit_code == 0, done.output
    assert f"results: {REPORT}" in done.stdout
    assert "infembed/coherence: scale=here (asked for), results in " in done.stderr
    assert REPORT.read_text().startswith("# infembed/coherence, scale here\n")


def test_the_command_names_what_failed_of_several_experiments_and_runs_the_others(slicebench, no_data):
    both = "experiment=spotlight/tabular,infembed/coherence"
    done = slicebench("run", both, HERE, "method=random", "dataset=wine,digits", QUICK)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    assert "winequality-red.csv is missing" in done.stderr
    assert done.stderr.splitlines()[-1] == "slicebench: 1 of 2 runs failed"
    assert REPORT.is_file()


def test_a_mistake_in_an_override_is_one_line(slicebench, no_data):
    done = slicebench("run", "experiment=spotlight/squad", "scale=huge")
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("slicebench: no scale is called 'huge'")


def test_a_setting_of_a_method_is_given_together_with_the_method():
    with pytest.raises(
        InvalidInput, match=r"method.n_slices is set, but not of which method: add method=NAME, one of s"
    ):
        orders(["experiment=spotlight/tabular", HERE, "method.n_slices=3"])
    both = arms_of(
        "experiment=spotlight/tabular", HERE, "dataset=adult", "method=spotlight,random", "method.n_slices=3"
    )
    assert of("method", both) == ["spotlight", "random"]
    assert all(settings_in(one)["method.n_slices"] == "3" for one in both)
    assert arms_of("experiment=spotlight/tabular", HERE, "method.label=mine")  # every method has one


def test_a_misspelt_experiment_gets_the_nearest_names_of_all():
    with pytest.raises(
        InvalidInput, match="no experiment is called 'spotlight/fairfaces'; the nearest are spotlight/fairface"
    ):
        orders(["experiment=spotlight/fairfaces"])
