"""On a fixture in the publisher's layout, and on the real files where there are some."""

import numpy as np
import pytest
import torch

from experiments.loaders.wine import MEASUREMENTS, Wine
from experiments.reading.sources import Absent
from methods.contract import InvalidInput

HEADER = ";".join(f'"{name}"' for name in (*MEASUREMENTS, "quality"))


def rows_of(first, n):
    """Rows of which every third is there twice; the quality is from 3 to 8."""
    rows = [";".join([str(first + row), *["0.5"] * 10, str(3 + row % 6)]) for row in range(n)]
    return rows + rows[::3]


RED, WHITE = rows_of(5, 12), rows_of(100, 30)


def publish(root, red=RED, white=WHITE, header=HEADER):
    """Wine quality as its publisher lays it out."""
    folder = root / "uci"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "winequality-red.csv").write_text("\n".join([HEADER, *red]) + "\n")
    (folder / "winequality-white.csv").write_text("\n".join([header, *white]) + "\n")
    return root


def loaded(root, seed=0, **settings):
    return Wine(**settings).load(root, seed)


def test_red_and_white_wines_are_one_data_set(tmp_path):
    dataset = loaded(publish(tmp_path))
    assert dataset.class_names == ("quality below 6", "quality 6 or more")
    assert sum(split.n_examples for split in dataset.splits.values()) == len(RED) + len(WHITE)
    test = dataset.split("test")
    assert set(test.attributes["colour"]) == {"red", "white"}
    assert [i.split("-")[0] for i in test.example_ids] == test.attributes["colour"].tolist()
    assert ((test.attributes["quality"] >= 6) == (test.labels == 1).numpy()).all()
    assert test.examples.shape[1] == 11  # the colour is no feature


def test_equal_rows_are_never_in_two_splits(tmp_path):
    dataset = loaded(publish(tmp_path), validation_share=0.25)
    seen = {name: set(split.examples[:, 0].tolist()) for name, split in dataset.splits.items()}
    assert sum(map(len, seen.values())) == len(set().union(*seen.values())) == 12 + 30


def test_the_seed_decides_the_splits(tmp_path):
    root = publish(tmp_path)
    assert loaded(root).fingerprint == loaded(root).fingerprint != loaded(root, seed=1).fingerprint


def test_the_threshold_decides_the_label(tmp_path):
    dataset = loaded(publish(tmp_path), threshold=8)
    assert dataset.class_names == ("quality below 8", "quality 8 or more")
    assert sum(int(split.labels.sum()) for split in dataset.splits.values()) == 7


def test_a_threshold_that_leaves_one_class_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="no example of the class 'quality 10 or more'"):
        loaded(publish(tmp_path), threshold=10)


def test_without_the_data_it_is_said_what_to_get(tmp_path):
    with pytest.raises(Absent, match=r"winequality-red.csv is missing. Get winequality-red.csv and"):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (WHITE[0].replace("100", "much"), "line 2: fixed acidity is 'much', expected a number"),
        (WHITE[0].replace("0.5", "0,5"), "line 2: volatile acidity is '0,5'"),
        (WHITE[0][:-2], "line 2: quality is ''"),
        (WHITE[0] + "5", "line 2: quality is '35', expected a number in"),
        (WHITE[0] + ".5", "line 2: quality is '3.5', expected a whole number"),
        (WHITE[0] + ";5", "more fields than its 12 columns"),
    ],
)
def test_what_is_wrong_in_a_row_is_refused_with_its_line(tmp_path, row, said):
    with pytest.raises(InvalidInput, match=f"winequality-white.csv.*{said}"):
        loaded(publish(tmp_path, white=[row, *WHITE[1:]]))


def test_a_file_with_other_separators_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"winequality-white.csv has no column 'fixed acidity'"):
        loaded(publish(tmp_path, header=HEADER.replace(";", ",")))


def test_the_real_files(data):
    dataset = loaded(data("uci/winequality-red.csv", "uci/winequality-white.csv"))
    colours = np.concatenate([split.attributes["colour"] for split in dataset.splits.values()])
    assert (colours == "red").sum() == 1_599
    assert (colours == "white").sum() == 4_898
    examples = torch.cat([split.examples for split in dataset.splits.values()])
    assert len(examples.unique(dim=0)) == 6_497 - 1_179
    shares = [split.labels.float().mean().item() for split in dataset.splits.values()]
    assert np.allclose(shares, 0.633, atol=0.02)
