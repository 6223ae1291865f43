"""Every yaml of conf/: it composes, its target exists, and its keys are the target's fields, all of them."""

from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_module

import conf
from experiments.schema import parameters_of
from experiments.settings import BESIDE_THE_TARGET, COMPONENTS, Compute, Evaluation, Paths, Seeds

ROOT = Path(conf.__path__[0])
FILES = sorted(path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.rglob("*.yaml"))
CONFIGS = [name for name in FILES if not name.startswith(("suite/", "hydra/"))]  # those are no settings of a run
LAUNCHERS = [name for name in FILES if name.startswith("hydra/launcher/")]
IN_GROUPS = [name for name in CONFIGS if "/" in name]
PLAIN = {"evaluation": Evaluation, "compute": Compute, "paths": Paths}
VARIANTS = ("tracking/offline", "evaluation/stored")  # of another file of their group
ANYTHING = ("experiment", "scale")  # groups that set other groups' keys
# what a config leaves for the user to say
REQUIRED = {
    "dataset/image_folder": ["dataset.path=any"],
    "dataset/predictions": ["dataset.path=any.npz"],
    "dataset/suite": ["dataset.name=any"],
    "dataset/table": ["dataset.path=any.csv", "dataset.label=any"],
    "method/custom": ["method._target_=methods.gmm.GMM"],
    "model/image_classifier": ["model.name=any"],
    "model/custom": ["model._target_=experiments.models.small_cnn.SmallCNN"],
    "embedding/layer": ["embedding.layer=hidden"],
    "embedding/encoder": ["embedding.name=any"],
}


def test_the_list_of_configs_is_not_empty():
    assert "config" in CONFIGS
    assert {name.split("/")[0] for name in IN_GROUPS} == {*COMPONENTS, *PLAIN, *ANYTHING}


@pytest.mark.parametrize("name", IN_GROUPS)
def test_every_config_composes_and_binds_to_its_target(name, settings_of):
    override = name.replace("/", "=", 1)
    group, *_, last = name.split("/")
    dataset = [f"dataset={last}"] if group == "scale" else []  # which it sets
    assert settings_of(override, *dataset, *REQUIRED.get(name, [])).seeds == Seeds()


def test_there_is_a_launcher_for_jobs_with_a_gpu_and_one_without():
    assert LAUNCHERS == ["hydra/launcher/cpu", "hydra/launcher/gpu"]


@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_launcher_has_settings_that_submitit_knows_and_says_how_to_ask_for_it(name):
    with initialize_config_module("conf", version_base="1.3"):
        config = compose(
            "config", ["=".join(name.rsplit("/", 1)), "hydra.launcher.partition=a"], return_hydra_config=True
        )
    assert config.hydra.launcher._target_.endswith(".SlurmLauncher")
    assert config.hydra.launcher.partition == "a"
    assert "=".join(name.rsplit("/", 1)) in (ROOT / f"{name}.yaml").read_text().splitlines()[0]


@pytest.mark.parametrize("name", [name for name in IN_GROUPS if name.split("/")[0] not in ANYTHING])
def test_a_yaml_has_the_fields_of_its_target_and_no_others(name):
    group = name.split("/")[0]
    values = yaml.safe_load((ROOT / f"{name}.yaml").read_text())
    keys = set(values) - {"_target_", "defaults"}
    if name.endswith("/custom") or name in VARIANTS:
        return
    target = PLAIN[group] if group in PLAIN else _class_at(values["_target_"])
    beside = set(BESIDE_THE_TARGET[group].__dataclass_fields__) if group in BESIDE_THE_TARGET else set()
    assert keys - beside == set(parameters_of(target)) - {"seed"}


def _class_at(target):
    module, _, name = target.rpartition(".")
    return getattr(import_module(module), name)


@pytest.mark.parametrize("name", [name for name in IN_GROUPS if name.startswith("experiment/")])
def test_an_experiment_says_on_its_second_line_how_to_run_it(name):
    lines = (ROOT / f"{name}.yaml").read_text().splitlines()
    assert lines[1] == f"# slicebench run experiment={name.removeprefix('experiment/')}"
    assert lines[2].startswith("# ")


@pytest.mark.parametrize("name", [name for name in IN_GROUPS if name.split("/")[0] not in ANYTHING])
def test_the_yaml_s_values_are_the_defaults_of_its_target(name):
    """Else `Spotlight()` in a notebook and `method=spotlight` on the command line would be two methods."""
    group = name.split("/")[0]
    values = yaml.safe_load((ROOT / f"{name}.yaml").read_text())
    if name in REQUIRED or name in VARIANTS or group == "paths":
        return
    target = PLAIN[group] if group in PLAIN else _class_at(values["_target_"])
    assert_defaults(values, target())


def assert_defaults(values, instance):
    for key, value in values.items():
        if not hasattr(instance, key) or "${" in str(value):
            continue
        default = getattr(instance, key)
        if isinstance(value, dict):
            # one that is left out would need a + on the command line
            assert set(value) == {field.name for field in fields(default)}, key
            assert_defaults(value, default)
        else:
            assert value == (list(default) if isinstance(default, tuple) else default), key
