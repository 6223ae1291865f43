"""Which examples of a slice are shown, and how."""

import pandas as pd
import pytest

from experiments.describing.problems import FoundProblem
from experiments.report.assets import Assets
from experiments.report.examples import PICTURES, ROWS, TEXTS, Gallery, words_of
from experiments.report.slice_section import section
from tests.experiments.analyses.reading import members
from tests.experiments.report.conftest import eight_examples


def first_slice(run, folder=None):
    gallery = Gallery(run, Assets(folder))
    return section(FoundProblem(run, "all"), 1, gallery), gallery


def ids(people):
    return [shown.id for shown in people]


def test_the_strongest_members_are_shown_then_the_worst_of_the_other_wrong_ones(stored_run):
    n = 3 * ROWS
    table = {"loss": range(n), "correct": [row == n - 1 for row in range(n)]}
    rising = [[(row + 1) / n] for row in range(n)]
    one, _ = first_slice(stored_run(table, members(n, range(n)), membership=rising))
    assert ids(one.shown) == [f"{row:05d}" for row in reversed(range(n - ROWS, n))]
    assert ids(one.worst) == [f"{row:05d}" for row in reversed(range(n - 2 * ROWS, n - ROWS))]


def test_members_with_the_right_answer_are_not_among_the_errors(stored_run):
    n = ROWS + 3
    table = {"loss": range(n, 0, -1), "correct": [*[False] * ROWS, True, False, True]}
    one, _ = first_slice(stored_run(table, members(n, range(n))))
    assert ids(one.worst) == [f"{ROWS + 1:05d}"]


def test_where_there_is_nothing_to_show_examples_are_rows(stored_run):
    attributes = {f"attribute_{name}": [name] * 8 for name in "abcdefgh"} | {"attribute_age": range(8)}
    one, _ = first_slice(stored_run(eight_examples(**attributes)))
    assert one.kind == "rows"
    assert one.columns == list("abcdef")
    assert one.shown[0].values == tuple("abcdef")
    assert (one.shown[0].label, one.shown[0].prediction, one.shown[0].number) == ("cat", "dog", 4.0)


def test_what_stands_out_is_the_first_column(stored_run):
    n = 60
    table = {"loss": [1.0] * n, "correct": [True] * n, "attribute_a": ["x", "y"] * 30}
    one, _ = first_slice(stored_run({**table, "attribute_hat": [row < 20 for row in range(n)]}, members(n, range(20))))
    assert one.columns == ["hat", "a"]


def test_texts_are_shown_with_their_words_marked(stored_run):
    texts = ["a dull film", "so dull", "dull!", *["a great film"] * 5]
    one, _ = first_slice(stored_run(eight_examples(text=texts)))
    assert one.kind == "texts"
    assert [[tuple(piece) for piece in shown.text] for shown in one.shown] == [
        [("a ", False), ("dull", True), (" film", False)],
        [("so ", False), ("dull", True)],
        [("dull", True), ("!", False)],
    ]
    ((token, ratio, count),) = one.words.tokens
    assert (token, count) == ("dull", 3)
    assert ratio == pytest.approx((4 / 5) / (4 / 10))  # one text with the word, and one without, are added to both


def test_a_word_must_be_in_several_texts_of_a_slice(stored_run):
    n = 20
    texts = [f"unique{row} {'shared' if row < 5 else 'other'}" for row in range(n)]
    run = stored_run({"loss": [1.0] * n, "correct": [True] * n, "text": texts}, members(n, range(6)))
    assert [token for token, _, _ in words_of(FoundProblem(run, "all").scored, 1).tokens] == ["shared"]


def test_texts_without_a_word_are_shown_as_well(stored_run):
    texts = ["👍", "5", "…", *["a great film"] * 5]
    one, _ = first_slice(stored_run(eight_examples(text=texts)))
    assert [shown.text[0].text for shown in one.shown] == ["👍", "5", "…"]
    assert len(one.shown) == TEXTS


def test_pictures_are_small_files_beside_the_pages(pictures_run, tmp_path):
    one, gallery = first_slice(pictures_run(n=PICTURES + 4), tmp_path)
    assert one.kind == "pictures"
    assert len(one.shown) == PICTURES
    assert all((tmp_path / shown.picture).is_file() for shown in [*one.shown, *one.worst])
    assert not gallery.reasons


def test_one_picture_that_cannot_be_read_takes_no_other_with_it(pictures_run, tmp_path):
    one, gallery = first_slice(pictures_run(n=12, broken=2), tmp_path)
    assert [shown.picture is None for shown in one.shown] == [True, True, *[False] * 7]
    assert one.kind == "pictures"
    assert gallery.reasons == {"test": "2 of 10 pictures cannot be read, test/thing/00.png among them"}


def test_where_no_picture_can_be_read_there_are_ids(pictures_run):
    one, gallery = first_slice(pictures_run(n=2, broken=2))
    assert one.kind == "rows"
    assert ids(one.shown) == ["test/thing/00.png", "test/thing/01.png"]
    assert gallery.reasons["test"].startswith("2 of 2 pictures cannot be read")


def test_data_that_are_not_here_are_a_reason_and_leave_ids(pictures_run, tmp_path):
    run = pictures_run()
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    one, gallery = first_slice(run)
    assert one.kind == "rows"
    assert ids(one.shown) == [f"test/thing/{row:02d}.png" for row in range(4)]
    assert "expected a folder with pictures" in gallery.reasons["test"]


def test_data_that_have_changed_since_are_not_shown(pictures_run):
    run = pictures_run(n=3)
    pictures_run(n=3, broken=1)
    assert "is not what the run saw" in first_slice(run)[1].reasons["test"]


def opponents(*ids):
    return pd.DataFrame(
        {"problem": "all", "slice": 0, "rank": range(1, len(ids) + 1), "example_id": list(ids)}
        | {"sign": [-1, *[1] * (len(ids) - 1)], "influence": [-2.5, *[0.5] * (len(ids) - 1)]}
    )


def test_training_examples_are_shown_with_their_influence(pictures_run, tmp_path):
    one, _ = first_slice(pictures_run(opponents=opponents("train/thing/03.png", "train/thing/01.png")), tmp_path)
    ((worst,), (best,)) = one.opponents, one.proponents
    assert (worst.id, worst.number, worst.label) == ("train/thing/03.png", -2.5, "thing")
    assert (best.id, best.number) == ("train/thing/01.png", 0.5)
    assert (tmp_path / worst.picture).is_file()


def test_training_examples_that_nobody_knows_any_more_keep_their_ids(pictures_run, tmp_path):
    run = pictures_run(opponents=opponents("train/thing/03.png"))
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    one, gallery = first_slice(run)
    ((shown,),) = (one.opponents,)
    assert (shown.id, shown.label, shown.picture) == ("train/thing/03.png", "–", None)
    assert set(gallery.reasons) == {"test", "train"}


def test_training_examples_are_those_of_the_stored_problem(stored_run):
    halves = [
        pd.DataFrame(eight_examples(text=f"about {name}")).assign(
            problem=name, split=split, id=[f"{split} {i}" for i in range(8)]
        )
        for name in ("p", "q")
        for split in ("validation", "test")
    ]
    slices = dict.fromkeys(("p", "q"), members(8, range(3)))
    table = opponents("validation 4").assign(problem="q")
    evaluation = {"evaluation": {"opponents_from": "validation"}}
    run = stored_run(pd.concat(halves, ignore_index=True), slices, definition=evaluation, opponents=table)
    gallery = Gallery(run, Assets(None))
    assert section(FoundProblem(run, "p"), 1, gallery).opponents == []
    ((shown,),) = (section(FoundProblem(run, "q"), 1, gallery).opponents,)
    assert (shown.id, shown.label, shown.text[0].text) == ("validation 4", "dog", "about q")
