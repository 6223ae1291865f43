"""What a suite's file may say, and the problems that it asks for."""

import re
from dataclasses import replace

import pandas as pd
import pytest
import torch
import yaml

from experiments.contract import Dataset, Split
from experiments.suites.recipes import FOLDER, Recipe, read_suite
from methods.contract import InvalidInput

VALUES = ("young", "old", "old", "young", "old", "none")  # of cats and dogs in turn


def data(values=VALUES, class_names=("cat", "dog"), labels=(0, 1) * 3):
    """A train split of six."""
    ids = tuple(f"e{row}" for row in range(len(labels)))
    attributes = pd.DataFrame({"age": list(values)}, index=pd.Index(ids, name="id"))
    labels = None if labels is None else torch.tensor(labels)
    return Dataset("pets", "table", class_names, {"train": Split(ids, torch.zeros(6, 1), labels, attributes)}, "f")


@pytest.fixture
def read(tmp_path):
    """Read what a suite's file says."""

    def written(content):
        path = tmp_path / "mine.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        return read_suite(str(path))[1]

    return written


@pytest.fixture
def block(read, a_block):
    def made(**settings):
        return read({"b": a_block(**settings)})["b"]

    return made


def names(block, dataset=None):
    return [recipe.name for recipe in block.recipes("b", dataset or data())]


def recipe(class_name="cat", value="old", block="b", attribute="age", strength=0.1):
    return Recipe(block, "rare", class_name, attribute, value, strength, 0)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_suite_of_ours_is_read(path):
    name, blocks = read_suite(path.stem)
    assert name == path.stem
    assert blocks
    assert path.read_text().startswith(f"# slicebench make {name}")


def test_there_are_suites():
    assert {path.stem for path in FOLDER.glob("*.yaml")} >= {"digits"}


def test_a_file_of_ones_own_is_read_by_its_path(read, a_block, tmp_path):
    blocks = read({"first": a_block(), "second": a_block(seeds=[3])})
    assert list(blocks) == ["first", "second"]
    assert blocks["first"].seeds == (0,)
    assert blocks["second"].seeds == (3,)
    assert blocks["first"].kinds == {"rare": (0.01,)}
    assert read_suite(str(tmp_path / "mine.yaml"))[0] == "mine"


def test_problems_are_kinds_by_slices_by_strengths_by_seeds(block):
    slices = [{"attribute": "age", "classes": ["dog"], "values": ["old", "young"]}]
    made = block(slices=slices, kinds={"rare": [0.1, 0.2], "noisy_label": [0.5]}, seeds=[0, 1])
    recipes = list(made.recipes("b", data()))
    assert len({recipe.name for recipe in recipes}) == len(recipes) == 12
    assert [recipe.kind for recipe in recipes] == ["rare"] * 8 + ["noisy_label"] * 4
    assert recipes[0] == Recipe("b", "rare", "dog", "age", "old", 0.1, 0)
    assert {recipe.class_name for recipe in recipes} == {"dog"}


def test_where_no_class_and_no_value_is_named_all_that_occur_are_taken(block):
    pairs = [(r.class_name, r.value) for r in block(slices=[{"attribute": "age"}]).recipes("b", data())]
    assert pairs == [("cat", "old"), ("cat", "young"), ("dog", "none"), ("dog", "old"), ("dog", "young")]


def test_numbers_are_values_as_they_are_written(block):
    dataset = data(values=(7, 8, 7, 8, 7, 8))
    assert [r.value for r in block(slices=[{"attribute": "age", "values": ["7"]}]).recipes("b", dataset)] == ["7", "7"]


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_examples_without_a_value_are_in_no_slice(block, missing):
    dataset = data(values=("old", "young", missing, missing, "old", "young"))
    pairs = [(r.class_name, r.value) for r in block(slices=[{"attribute": "age"}]).recipes("b", dataset)]
    assert pairs == [("cat", "old"), ("dog", "young")]


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"attribute": "ages"}, "pets has no attribute 'ages' beside labels: it has age"),
        ({"attribute": "age", "classes": ["dig"]}, r"pets has no class 'dig'; the nearest is dog \(all: cat, dog\)"),
        ({"attribute": "age", "values": ["ol"]}, "no training example of pets has age 'ol'; the nearest is old"),
        ({"attribute": "age", "classes": ["cat", "Dog"]}, "no class 'Dog'; the nearest is dog"),
    ],
)
def test_what_the_data_do_not_have_is_named_with_the_nearest(block, choice, says):
    with pytest.raises(InvalidInput, match=says):
        names(block(slices=[choice]))


def test_data_without_labels_are_refused(block):
    split = replace(data().split("train"), labels=None)
    with pytest.raises(InvalidInput, match="labels"):
        names(block(slices=[{"attribute": "age"}]), Dataset("answers", "table", (), {"train": split}, "f"))


def test_an_empty_suite_is_refused(read):
    for content in ("", "# nothing\n", "{}", "- a\n", "a\n", "3"):
        with pytest.raises(InvalidInput, match=r"mine\.yaml has no blocks, expected names with overrides"):
            read(content)


@pytest.mark.parametrize("content", ["b:\n", "b: 1\n", "b: [overrides]\n", "b: overrides\n"])
def test_a_block_that_is_no_mapping_is_refused(read, content):
    with pytest.raises(InvalidInput, match=r"mine\.yaml: b is .*, expected overrides, slices and kinds"):
        read(content)


@pytest.mark.parametrize(
    "content", ["b: [", "b: {a: 1", "\tb: 1", "b: !!python/object/apply:os.mkdir [made]", "? [1]: 2"]
)
def test_what_is_no_plain_yaml_is_refused_in_one_line(read, content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match=r"mine\.yaml") as error:
        read(content)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "made").exists()


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00b: 1")
    with pytest.raises(InvalidInput, match=r"mine\.yaml cannot be read"):
        read_suite(str(path))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("digit", "no suite is called 'digit', .*; the nearest is digits"),
        ("nowhere.yaml", r"no suite is called 'nowhere\.yaml', and no yaml file is at nowhere\.yaml"),
    ],
)
def test_a_suite_that_is_not_there_is_named_with_the_nearest(name, says):
    with pytest.raises(InvalidInput, match=says):
        read_suite(name)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"slice": []}, r"b has no setting 'slice'; the nearest is slices"),
        ({"slices": [{"atribute": "age"}]}, r"b\.slices\.0 has no setting 'atribute'; the nearest is attribute"),
        ({"slices": [{"attribute": "age", "value": ["old"]}]}, r"b\.slices\.0 has no setting 'value'; .* values"),
        ({"planted": {"artefact": "tag", "shar": 0.1}}, r"b\.planted has no setting 'shar'; the nearest is share"),
        ({"frozen": {"name": "x", "size": 32}}, r"b\.frozen has no setting 'size'.*image_size"),
        ({"kinds": {"rear": [0.1]}}, "no kind of problem is called 'rear'; the nearest is rare"),
        ({"kinds": {"rare": 0.1}}, r"b\.kinds is .*rare"),
        ({"kinds": {"rare": ["much"]}}, r"b\.kinds is .*much"),
        ({"kinds": {}}, "kind"),
        ({"kinds": None}, r"b\.kinds is None"),
        ({"overrides": "dataset=digits"}, r"b\.overrides is 'dataset=digits', expected a list"),
        ({"overrides": [1]}, r"b\.overrides is \[1\], expected a list"),
        ({"slices": []}, r"b\.slices is empty, expected at least 1"),
        ({"slices": {"attribute": "age"}}, r"b\.slices is .*, expected a list"),
        ({"slices": ["age"]}, r"b\.slices\.0 is 'age'"),
        ({"slices": [{"values": ["old"]}]}, r"b\.slices\.0\.attribute is missing"),
        ({"slices": [{"attribute": "age", "classes": []}]}, r"b\.slices\.0\.classes is empty"),
        ({"slices": [{"attribute": "age", "values": [9]}]}, r"b\.slices\.0\.values is \[9\], expected a list"),
        ({"seeds": [-1]}, r"b\.seeds is -1, expected at least 0"),
        ({"seeds": [2**32]}, r"b\.seeds is 4294967296, expected .*at most 4294967295"),
        ({"seeds": [0.5]}, r"b\.seeds is \[0\.5\], expected a list \(each a whole number\)"),
        ({"seeds": []}, r"b\.seeds is empty"),
        ({"seeds": 3}, r"b\.seeds is 3, expected a list"),
        ({"least": 0}, r"b\.least is 0, expected at least 1"),
        ({"least": "many"}, r"b\.least is 'many', expected a whole number"),
        ({"planted": {"artefact": "strip"}}, r"b\.planted\.artefact is 'strip', expected tag or stripe or blur"),
        ({"planted": {"artefact": "tag", "share": 1.0}}, r"b\.planted\.share is 1\.0, expected .*below 1"),
        ({"planted": "tag"}, r"b\.planted is 'tag', expected settings"),
        ({"frozen": {}}, r"b\.frozen\.name is missing"),
        ({"frozen": {"name": "x", "image_size": 0}}, r"b\.frozen\.image_size is 0, expected at least 1"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_is_named_with_what_may_be(block, settings, says):
    with pytest.raises(InvalidInput, match=says) as error:
        block(**settings)
    assert "mine.yaml: b" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("missing", ["overrides", "slices", "kinds"])
def test_a_setting_that_is_missing_is_named(read, a_block, missing):
    content = {name: value for name, value in a_block().items() if name != missing}
    with pytest.raises(InvalidInput, match=rf"b\.{missing} is missing"):
        read({"b": content})


@pytest.mark.parametrize("strength", [float("nan"), float("inf")])
def test_a_strength_that_is_no_number_is_refused(block, strength):
    with pytest.raises(InvalidInput, match="noisy_label"):
        block(kinds={"noisy_label": [strength]})


def test_a_kind_without_strengths_is_refused(block):
    with pytest.raises(InvalidInput, match="rare"):
        block(kinds={"rare": []})


def test_a_suite_without_kinds_is_told_what_is_missing(block):
    with pytest.raises(InvalidInput, match="kinds is empty"):
        block(kinds={})


def test_two_blocks_of_one_name_are_refused(read, a_block):
    one = yaml.safe_dump({"b": a_block()})
    with pytest.raises(InvalidInput, match=r"'?b'?.*(twice|2)"):
        read(one + one)


def test_a_name_says_what_the_problem_is():
    assert Recipe("faces", "rare", "female", "age", "0-2", 0.01, 0).name == "faces-rare-female-age-0-2-0.01-seed-0"


ODD = ("a/b", "..", ".", "../..", "a\\b", "a b", " ", "", "CON", "née", "日本", "猫", "[red]x[/red]", "a\nb", "*?", "~")


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("where", ["class_name", "value", "attribute", "block"])
def test_a_name_is_a_file_name_whatever_classes_are_called(odd, where, tmp_path):
    name = recipe(**{where: odd}).name
    assert re.fullmatch(r"[a-z0-9_][a-z0-9._-]*[a-z0-9]", name)
    (tmp_path / name).mkdir()
    assert (tmp_path / name).resolve().parent == tmp_path


@pytest.mark.parametrize("where", ["class_name", "value", "attribute", "block"])
def test_different_problems_have_different_names(where):
    made = [recipe(**{where: odd}).name for odd in ODD]
    assert len(set(made)) == len(ODD)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (recipe("a/b"), recipe("a b")),
        (recipe("Cat"), recipe("cat")),
        (recipe("a", "age-b", attribute="age"), recipe("a-age", "b", attribute="age")),
    ],
    ids=["punctuation", "case", "attribute"],
)
def test_classes_that_are_spelt_alike_have_different_names(one, other):
    assert one.name != other.name


def test_a_very_long_name_is_still_a_file_name(tmp_path):
    """Beside it stand a lock and, while it is made, a hidden folder."""
    one, other = (recipe("k" * 300, value).name for value in ("old", "young"))
    assert one != other
    (tmp_path / f".{one}.making").mkdir()
    (tmp_path / one).mkdir()
