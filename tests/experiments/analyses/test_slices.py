"""Numbers of slices against hand computation."""

import numpy as np

from experiments.analyses.slices import analyse
from tests.experiments.analyses.reading import value

EXAMPLES = {"loss": [0.1, 0.2, 3.0, 5.0], "correct": [True, True, False, False]}


def test_size_share_loss_and_accuracy_of_a_slice(finished_run, out):
    numbers = analyse([finished_run(EXAMPLES, [[0, 0], [0, 1], [1, 0], [1, 0]])], out)
    assert value(numbers, "size", slice=1) == 2
    assert value(numbers, "share", slice=1) == 0.5
    np.testing.assert_allclose(value(numbers, "mean_loss", slice=1), 4.0)
    assert value(numbers, "accuracy", slice=2) == 1.0


def test_the_whole_split_stands_beside_the_slices(finished_run, out):
    numbers = analyse([finished_run(EXAMPLES, [[1], [0], [0], [0]])], out)
    np.testing.assert_allclose(value(numbers, "mean_loss", group="all"), 8.3 / 4)
    assert value(numbers, "accuracy", group="all") == 0.5
    assert value(numbers, "n_slices", group="all") == 1


def test_an_empty_slice_has_a_size_and_no_loss(finished_run, out):
    numbers = analyse([finished_run(EXAMPLES, [[0], [0], [0], [0]])], out)
    assert value(numbers, "size", slice=1) == 0
    assert "mean_loss" not in set(numbers.loc[numbers["slice"] == 1, "measure"])


def test_objectives_of_spotlights_are_kept(finished_run, out):
    run = finished_run(EXAMPLES, [[1], [1], [0], [0]], diagnostics=[{"objective": 1.25, "size_ratio": 1.05}])
    numbers = analyse([run], out)
    assert value(numbers, "objective", slice=1) == 1.25


def test_only_the_split_in_which_slices_were_sought_counts(finished_run, out):
    examples = {"loss": [9.0, 1.0, 3.0], "correct": [False, True, False], "split": ["train", "test", "test"]}
    numbers = analyse([finished_run(examples, [[1], [0]])], out)
    assert value(numbers, "mean_loss", group="all") == 2.0
    assert value(numbers, "mean_loss", slice=1) == 1.0


def test_the_picture_is_written_as_png_and_svg(finished_run, out):
    analyse(
        [
            finished_run(EXAMPLES, [[1, 0], [0, 1], [0, 0], [0, 0]]),
            finished_run(EXAMPLES, [[1], [1], [0], [0]], method="gmm"),
        ],
        out,
    )
    assert {path.suffix for path in out.folder.glob("tested-losses.*")} == {".png", ".svg"}
    assert out.pictures[0]["shows"] is None


def test_a_run_without_slices_has_the_numbers_of_the_split(finished_run, out):
    numbers = analyse([finished_run(EXAMPLES, np.zeros((4, 0)))], out)
    assert value(numbers, "n_slices", group="all") == 0
    assert numbers["slice"].isna().all()
