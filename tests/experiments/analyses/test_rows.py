"""Tables of slices' members, as people read them."""

import pandas as pd
import pytest

from experiments.analyses.rows import analyse
from methods.errors import InvalidInput

FILMS = {
    "loss": [0.5, 3.0, 1.0, 2.0],
    "correct": [True, False, False, False],
    "label": ["5", "1", "3", "2"],
    "prediction": ["5", "4", "4", "4"],
    "attribute_title": ["Fargo", "Jaws, again", None, '"Heat"\nII'],
    "attribute_user_ratings": [3, 5, 7, 9],
}


def table(out, name="spotlight"):
    return pd.read_csv(out.folder / f"tested-{name}.csv", dtype={"id": str})


def test_members_stand_in_the_order_of_their_membership(finished_run, out):
    membership = [[0.2, 0], [0.9, 0], [0.5, 0], [0.99, 1]]
    analyse([finished_run(FILMS, [[1, 0], [1, 0], [1, 0], [0, 1]], membership=membership)], out)
    shown = table(out)
    assert list(shown["slice"]) == [1, 1, 1, 2]
    assert list(shown["id"]) == ["00001", "00002", "00000", "00003"]


def test_equal_members_stand_in_the_order_of_their_losses(finished_run, out):
    analyse([finished_run(FILMS, [[1], [1], [1], [1]])], out)
    assert list(table(out)["loss"]) == [3.0, 2.0, 1.0, 0.5]


def test_a_row_has_label_prediction_loss_and_all_attributes(finished_run, out):
    analyse([finished_run(FILMS, [[0], [1], [0], [0]])], out)
    assert table(out).to_dict("records") == [
        {
            "slice": 1,
            "id": "00001",
            "label": 1,
            "prediction": 4,
            "loss": 3.0,
            "title": "Jaws, again",
            "user_ratings": 5,
        }
    ]


def test_attributes_can_be_chosen_and_keep_their_order(finished_run, out):
    analyse([finished_run(FILMS, [[1], [1], [0], [0]])], out, columns=["user_ratings", "title"])
    assert list(table(out))[-2:] == ["user_ratings", "title"]
    analyse([finished_run(FILMS, [[1], [1], [0], [0]])], out, columns=[])
    assert list(table(out)) == ["slice", "id", "label", "prediction", "loss"]


def test_an_unknown_attribute_is_refused_with_those_there_are(finished_run, out):
    with pytest.raises(InvalidInput, match="no attribute 'genre', expected one of title, user_ratings"):
        analyse([finished_run(FILMS, [[1], [1], [0], [0]])], out, columns=["genre"])


def test_no_more_slices_and_members_than_asked_for(finished_run, out):
    run = finished_run(FILMS, [[1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 0, 0]])
    numbers = analyse([run], out, n=2, most=2)
    assert list(table(out)["slice"]) == [1, 1, 2, 2]
    assert list(zip(numbers["slice"], numbers["measure"], numbers["value"], strict=True)) == [
        (1, "n_shown", 2),
        (2, "n_shown", 2),
    ]


def test_a_small_and_an_empty_slice_show_what_they_have(finished_run, out):
    numbers = analyse([finished_run(FILMS, [[0, 1], [0, 0], [0, 0], [0, 0]])], out)
    assert list(numbers["value"]) == [0, 1]
    assert list(table(out)["id"]) == ["00000"]


def test_a_run_without_slices_says_so(finished_run, out):
    numbers = analyse([finished_run(FILMS, [[], [], [], []])], out)
    assert len(numbers) == 0
    assert table(out).empty
    assert out.sentences == ["spotlight: no slice has members, so tested-spotlight.csv has no rows."]


def test_texts_with_quotes_and_new_lines_survive_the_file(finished_run, out):
    analyse([finished_run(FILMS, [[0], [0], [1], [1]])], out)
    shown = table(out).set_index("id")["title"]
    assert shown["00003"] == '"Heat"\nII'
    assert pd.isna(shown["00002"])


def test_questions_without_labels_have_empty_cells(finished_run, out):
    analyse([finished_run({"loss": [1.0, 2.0], "correct": [True, False]}, [[1], [1]])], out)
    assert table(out)[["label", "prediction"]].isna().all(axis=None)


def test_an_attribute_called_like_a_column_does_not_replace_it(finished_run, out):
    films = {"loss": [1.0], "correct": [True], "label": ["5"], "attribute_label": ["Capitol"]}
    analyse([finished_run(films, [[1]])], out)
    assert table(out).loc[0, ["label", "attribute_label"]].to_list() == [5, "Capitol"]


def test_each_run_has_its_table_and_a_sentence(finished_run, out):
    members = [[1], [1], [0], [0]]
    analyse([finished_run(FILMS, members), finished_run(FILMS, members, method="gmm")], out)
    assert [entry["file"] for entry in out.tables] == ["tested-spotlight.csv", "tested-gmm.csv"]
    assert "tested-gmm.csv" in out.sentences[1]


def test_no_rows_at_all_are_refused(finished_run, out):
    with pytest.raises(InvalidInput, match="n is 0"):
        analyse([finished_run(FILMS, [[1], [1], [0], [0]])], out, n=0)
