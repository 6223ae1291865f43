"""To exist is to be tested: what holds for every prepared experiment, each of which is run on a tiny pack of data."""

import json
from dataclasses import replace
from functools import cache
from importlib import import_module
from itertools import product
from pkgutil import iter_modules

import pandas as pd
import pytest
import yaml
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import open_dict
from PIL import Image

import experiments.analyses
from experiments.analysing import RECORD
from experiments.jobs import run_job
from experiments.listing import items
from experiments.prepared import EXPERIMENTS, orders, read_prepared
from experiments.rerun import rerun
from experiments.scale import FOLDER, SCALES
from experiments.settings import settings_of
from tests.experiments.tiny_pack import write_pack

# the tables and figures of the two papers, as the design lists them
DESIGNED = {
    *("spotlight/fairface", "spotlight/fairface_sizes", "spotlight/imagenet", "spotlight/amazon"),
    *("spotlight/movielens", "spotlight/squad", "spotlight/chest_xray", "spotlight/clusters", "spotlight/synthetic"),
    *("spotlight/domino", "spotlight/tabular", "spotlight/cost"),
    *("infembed/dcbench", "infembed/imagenet", "infembed/ag_news", "infembed/bone_age", "infembed/covid"),
    "infembed/coherence",
}
NAMES = sorted(DESIGNED)
METHODS = {item["name"] for item in items("methods")}
ANALYSES = {name for _, name, _ in iter_modules(experiments.analyses.__path__) if not name.startswith("_")}
ONLY_SHOW = {"contact_sheets"}  # analyses without numbers
REFUSED = {"spotlight/imagenet": ["george"]}  # too few images of a class, as the paper says

# what is left out here to save time: more of the same
NARROWED = {
    "infembed/ag_news": "method=infembed,domino,random",
    "infembed/bone_age": "dataset.signal=tag",
    "infembed/coherence": "dataset=digits,bone_age",
    "infembed/dcbench": "method=infembed,domino",
    "spotlight/amazon": "method=spotlight,george",
    "spotlight/chest_xray": "method=spotlight",
    "spotlight/clusters": "dataset=fairface,movielens",
    "spotlight/cost": "dataset=imagenet,squad,adult",
    "spotlight/domino": "dataset=wine,imagenet,digits",
    "spotlight/fairface": "method=spotlight,george",
    "spotlight/imagenet": "method=spotlight,george",
    "spotlight/movielens": "method=spotlight",
    "spotlight/squad": "method=spotlight",
    "spotlight/synthetic": "method=spotlight,planespot corruption.noise=0.05",
    "spotlight/tabular": "method=spotlight,george",
}
# what fits the tiny pack: in place of what an arm has, or beside it
SMALL = "model=small_dnn model.channels=4 model.n_blocks=1 model.hidden=8 model.image_size=16"
IMAGES = f"{SMALL} model.training.epochs=1"
TEXTS = "model.name=minilm model.max_length=32 model.training.epochs=1"
DIGITS = "dataset.train_share=0.2 dataset.validation_share=0.7 model.channels=2 model.hidden=8 model.training.epochs=2"
OF_DATASET = {
    **dict.fromkeys(("fairface", "chest_xray", "covid_xray"), IMAGES),
    "bone_age": f"{IMAGES} dataset.n_train=40 dataset.n_validation=20",
    **dict.fromkeys(("amazon_polarity", "ag_news"), TEXTS),
    "squad": TEXTS.replace("max_length=32", "max_length=64"),
    "movielens": "model.width=4 model.code=2 model.training.epochs=1",
    **dict.fromkeys(("adult", "wine"), "model.training.epochs=1"),
    "digits": DIGITS,
}
INFLUENCE = "embedding.krylov_dim=6 embedding.rank=3"
OF_METHOD = {
    "spotlight": "method.steps=20 method.size=4",
    **dict.fromkeys(("random", "highest_loss", "ball", "ridge"), "method.size=4"),
    "george": "method.reduce=pca method.max_k=2 method.n_init=1 method.min_size=2 method.min_class_size=3",
    "planespot": "method.reduce=pca method.min_components=2 method.max_components=3 method.min_size=1",
    "gmm": "method.n_components=3 method.min_size=1",
    "domino": "method.pca=4",
    "kmeans": "method.n_clusters=3 method.min_size=1",
    "infembed": f"{INFLUENCE} method.n_clusters=3 method.min_size=1",
    "infembed_rule": f"{INFLUENCE} method.min_size=2",
}
OF_ARM = {  # where an arm has them
    "dataset.slice_size": "dataset.slice_size=4",
    "method.pca": "method.pca=4",
    "method.sizes": "method.sizes=[4,8]",
    "method.start": "method.n_components=4",
    "evaluation.opponents": "evaluation.opponents=3",
    "embedding.n_hessian": "embedding.n_hessian=8",
    "corruption": "corruption.n_seeds=1",
}
OF_EXPERIMENT = {"spotlight/fairface_sizes": "dataset.slice_size=3,6 method.size=${dataset.slice_size}"}


def in_pairs(text):
    return dict(word.split("=", 1) for word in text.split())


def smaller(order):
    """The same experiment with settings that fit the tiny pack, an arm for each method."""
    arms = [dict(word.split("=", 1) for word in arm) for arm in order.sweep.arms]
    small = [_small(arm, method, order.experiment.name) for arm in arms for method in arm["method"].split(",")]
    return replace(order, sweep=replace(order.sweep, arms=tuple(small)))


def _small(arm, method, experiment):
    ours = [OF_DATASET.get(arm["dataset"], ""), OF_METHOD.get(method, ""), OF_EXPERIMENT.get(experiment, "")]
    of_arm = [text for key, text in OF_ARM.items() if key in arm and (key != "method.start" or method == "domino")]
    changed = {"method.label": "tiny", **arm, **in_pairs(" ".join(of_arm + ours)), "method": method}
    return tuple(f"{key}={value}" for key, value in changed.items())


def jobs_of(arm):
    """The overrides of each job of an arm."""
    parsed = OverridesParser.create().parse_overrides(list(arm))
    values = [
        [f"{one.key_or_group}={value}" for value in one.sweep_string_iterator()]
        if one.is_sweep_override()
        else [one.input_line]
        for one in parsed
    ]
    return [list(job) for job in product(*values)]


def launch_quickly(arguments, sweeps, dry_run):
    """As Hydra launches, but each job's config is composed once, and not four times."""
    with initialize_config_module("conf", version_base="1.3"):
        return [[run_job(_composed(job)) for arm in sweep.arms for job in jobs_of(arm)] for sweep in sweeps]


def _composed(job):
    config = compose("config", job, return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        config.pop("hydra")
    return config


def read(path):
    return json.loads(path.read_text())


def test_the_list_is_that_of_the_design():
    assert {item["name"] for item in items("experiments")} == DESIGNED | {"demo", "spotlight", "infembed"}
    assert all(read_prepared(name) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_command_in_its_file_asks_for_it_and_the_line_below_says_what_it_shows(name):
    _, command, said, *_ = (EXPERIMENTS / f"{name}.yaml").read_text().splitlines()
    assert command == f"# slicebench run experiment={name}"
    assert len(said.removeprefix("# ")) > 20
    (order,) = orders([*command.removeprefix("# slicebench run ").split(), "scale=here"])
    assert order.experiment.name == name


def test_every_analysis_is_there_and_every_one_that_is_there_is_used():
    named = {analysis.name for name in NAMES for analysis in read_prepared(name).analyses}
    assert named == ANALYSES
    assert all(callable(import_module(f"experiments.analyses.{name}").analyse) for name in ANALYSES)


def test_every_scale_file_is_of_a_data_set_that_some_experiment_uses():
    used = {
        (scale, words["dataset"])
        for name in NAMES
        for scale, arms in read_prepared(name).arms.items()
        for words in (in_pairs(" ".join(arm)) for arm in arms)
    }
    assert {(file.parent.name, file.stem) for file in FOLDER.rglob("*.yaml")} <= used


@cache
def checked(*job):
    """Its settings; the same job is in several experiments, and checked once."""
    return settings_of(job)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAMES)
def test_every_sweep_has_settings_that_fit(name, scale, workspace):
    """Without any data. The first job stands for the others, whose methods are configs of their own."""
    (order,) = orders([f"experiment={name}", f"scale={scale}", "paths.results=results"])
    for arm in order.sweep.arms:
        jobs = jobs_of(arm)
        assert {in_pairs(" ".join(job))["method"] for job in jobs} <= METHODS
        assert checked(*(word for word in jobs[0] if not word.startswith("experiment="))).scale.name == scale


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="module", params=NAMES)
def done(request, pack, tmp_path_factory):
    """The name, and the folder, of an experiment that was run on the tiny pack."""
    place, narrowed = tmp_path_factory.mktemp("work"), NARROWED.get(request.param, "").split()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("SLICEBENCH_DATA", str(pack))
        patch.setattr("experiments.rerun.launch_sweeps", launch_quickly)
        asked = [f"experiment={request.param}", "scale=here", *narrowed, "tracking=none", "compute.threads=1"]
        (order,) = orders(asked)
        failed, _ = rerun([smaller(order)], dry_run=False)
    assert not failed, "\n".join(f"{one.overrides}: {one.reason}\n{one.trace}" for one in failed)
    return request.param, place / order.folder


def test_all_runs_are_done_but_those_that_a_method_refuses(done):
    name, folder = done
    record = read(folder / RECORD)
    assert [read(folder / run / "run.json")["status"] for run in record["runs"]] == ["done"] * len(record["runs"])
    assert len(set(record["runs"])) == len(record["runs"]) > 0
    assert record["missing"] == []
    assert [in_pairs(one["overrides"])["method"] for one in record["refused"]] == REFUSED.get(name, [])


def test_every_analysis_gives_numbers(done):
    name, folder = done
    numbers = pd.read_parquet(folder / "analysis" / "numbers.parquet")
    asked = {analysis.name for analysis in read_prepared(name).analyses}
    assert set(numbers["analysis"]) == asked - ONLY_SHOW
    assert numbers["value"].notna().all()
    assert numbers[["measure", "method", "dataset"]].notna().all(axis=None)


def test_the_report_and_the_summary_name_the_experiment_and_its_scale(done):
    name, folder = done
    summary = read(folder / "analysis" / "summary.json")
    assert (summary["experiment"], summary["scale"]) == (name, "here")
    assert summary["notes"] == list(read_prepared(name).notes)
    assert (folder / "analysis" / "report.md").read_text().startswith(f"# {name}, scale here\n")


def test_the_summary_says_what_stands_in_for_the_paper_s_data_and_models(done):
    _, folder = done
    datasets = {path.parent.parent.name for path in folder.glob("*/*/run.json")}
    files = [FOLDER / "here" / f"{name}.yaml" for name in datasets]
    said = [yaml.safe_load(file.read_text()).get("scale", {}) for file in files if file.is_file()]
    stand_ins = {one for scale in said for one in scale.get("stand_ins", ())}
    assert set(read(folder / "analysis" / "summary.json")["stand_ins"]) == stand_ins
    assert all(one in (folder / "analysis" / "report.md").read_text() for one in stand_ins)


def test_every_picture_is_there_as_png_and_as_svg(done):
    _, folder = done
    pictures = read(folder / "analysis" / "summary.json")["pictures"]
    assert pictures
    for one in pictures:
        with Image.open(folder / "analysis" / f"{one['file']}.png") as image:
            assert min(image.size) > 50
        assert "<svg" in (folder / "analysis" / f"{one['file']}.svg").read_text()[:1000]
        assert one["caption"].endswith(".")
    assert len({one["file"] for one in pictures}) == len(pictures)


def test_every_table_for_people_is_there(done):
    _, folder = done
    for one in read(folder / "analysis" / "summary.json")["tables"]:
        assert len(pd.read_csv(folder / "analysis" / one["file"]))
