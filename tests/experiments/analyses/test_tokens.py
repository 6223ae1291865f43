"""Tokens and lengths of slices of texts against hand computation."""

import numpy as np
import pandas as pd
import pytest

from experiments.analyses import tokens
from experiments.analyses.tokens import analyse
from experiments.describing.texts import texts_of
from methods.errors import InvalidInput

REVIEWS = ["Que libro que", "que bien", *["good book"] * 8]
SPANISH = [[1], [1], *[[0]] * 8]


def reviews(texts, **columns):
    return {"text": texts, "loss": np.arange(len(texts), dtype=float), "correct": True, **columns}


def of_slice(numbers, measure="token_ratio", index=1):
    rows = numbers[(numbers["measure"] == measure) & (numbers["slice"] == index)]
    return rows.set_index("group")["value"].to_dict() if measure == "token_ratio" else rows.iloc[0]


@pytest.fixture
def drawn(out, monkeypatch):
    """The panels of each picture: their titles, words and numbers of bars, without a file."""
    seen = {}

    def look(figure, name, caption, shows=None):
        seen[name] = [
            (axes.get_title("left"), [label.get_text() for label in axes.get_yticklabels()], len(axes.patches))
            for axes in figure.axes
            if axes.get_visible()
        ]

    monkeypatch.setattr(out, "picture", look)
    return seen


def test_a_token_counts_once_a_text_and_is_smoothed(finished_run, out, drawn):
    numbers = analyse([finished_run(reviews(REVIEWS), SPANISH)], out, min_count=2)
    # 2 of 2 texts in the slice, 2 of 10 in the split: (3 / 4) / (3 / 12)
    assert of_slice(numbers) == {"que": pytest.approx(3.0)}
    assert numbers.loc[numbers["group"] == "que", "n"].to_list() == [2]


def test_without_smoothing_the_ratio_is_that_of_the_shares(finished_run, out, drawn):
    numbers = analyse([finished_run(reviews(REVIEWS), SPANISH)], out, min_count=1, smoothing=0)
    assert of_slice(numbers) == {"que": pytest.approx(5.0), "bien": pytest.approx(5.0), "libro": pytest.approx(5.0)}


def test_tokens_of_too_few_members_do_not_count(finished_run, out, drawn):
    numbers = analyse([finished_run(reviews(REVIEWS), SPANISH)], out, min_count=3)
    assert of_slice(numbers) == {}
    assert out.sentences[0].startswith("spotlight 1: no over-represented token in 3 of its texts;")


def test_english_stop_words_and_case_do_not_count(finished_run, out, drawn):
    texts = ["The Dictionary THE", "the dictionary", "a novel", "a novel"]
    numbers = analyse([finished_run(reviews(texts), [[1], [1], [0], [0]])], out, min_count=1)
    assert list(of_slice(numbers)) == ["dictionary"]


def test_a_rare_token_does_not_come_before_one_that_half_the_slice_holds(finished_run, out, drawn):
    words = np.full((1000, 2), "book", dtype=object)
    words[:150, 0] = words[200:250, 0] = "spanish"  # 75% of the slice, 20% of the split
    words[:5, 1] = "osito"  # 5 texts, all in the slice
    texts = [" ".join(row) for row in words]
    numbers = analyse([finished_run(reviews(texts), [[i < 200] for i in range(1000)])], out)
    ratios = of_slice(numbers)
    assert list(ratios) == ["spanish", "osito"]
    assert ratios["spanish"] == pytest.approx((151 / 202) / (201 / 1002))
    assert ratios["osito"] == pytest.approx((6 / 202) / (6 / 1002))


def test_no_more_tokens_than_asked_for(finished_run, out, drawn):
    numbers = analyse([finished_run(reviews(REVIEWS), SPANISH)], out, min_count=1, n_tokens=2)
    assert list(of_slice(numbers)) == ["que", "bien"]


def test_texts_of_a_spotlight_count_by_their_weights(finished_run, out, drawn):
    texts, weights = ["apple apple", "pear", "apple", "pear pear"], [[1.0], [0.5], [0.1], [0.0]]
    run = finished_run(reviews(texts), [[1], [1], [0], [0]], membership=weights)
    numbers = analyse([run], out, min_count=1, smoothing=0)
    assert of_slice(numbers) == {"apple": pytest.approx((1.1 / 1.6) / 0.5)}
    np.testing.assert_allclose(of_slice(numbers, "mean_length")["value"], (2 + 0.5 + 0.1) / 1.6)


def test_members_of_other_methods_weigh_the_same(finished_run, out, drawn):
    texts, membership = ["apple apple", "pear", "apple", "pear pear"], [[1.0], [0.5], [0.1], [0.0]]
    run = finished_run(reviews(texts), [[1], [1], [0], [0]], membership=membership, method="gmm")
    numbers = analyse([run], out, min_count=1, smoothing=0)
    assert of_slice(numbers) == {}  # apple is in half of the slice, and of the split
    assert of_slice(numbers, "mean_length")["value"] == 1.5


def test_mean_lengths_have_students_interval(finished_run, out, drawn):
    texts = ["one two", "one two three four", "one two three four five six", "one"]
    numbers = analyse([finished_run(reviews(texts), [[1], [1], [1], [0]])], out)
    length = of_slice(numbers, "mean_length")
    margin = 4.302653 * 2 / np.sqrt(3)  # t of 2 degrees of freedom, deviation 2
    np.testing.assert_allclose(length[["value", "low", "high"]].astype(float), [4, 4 - margin, 4 + margin], rtol=1e-6)
    whole = numbers[numbers["group"] == "all"].iloc[0]
    assert (whole["measure"], whole["value"], whole["n"]) == ("mean_length", 3.25, 4)


def test_one_text_alone_has_a_length_and_no_interval(finished_run, out, drawn):
    numbers = analyse([finished_run(reviews(REVIEWS), [[1], *[[0]] * 9])], out)
    length = of_slice(numbers, "mean_length")
    assert length["value"] == 3
    assert np.isnan([length["low"], length["high"]]).all()


def test_the_sentence_names_tokens_ratios_and_lengths(finished_run, out, drawn):
    analyse([finished_run(reviews(REVIEWS), SPANISH)], out, min_count=2)
    assert out.sentences == ["spotlight 1: que x3.0; 2.5 words on average against 2.1."]


def test_slices_of_several_runs_are_told_apart(finished_run, out, drawn):
    gmm = finished_run(reviews(REVIEWS), SPANISH, method="gmm")
    analyse([finished_run(reviews(REVIEWS), SPANISH), gmm], out)
    assert [sentence.split(":")[0] for sentence in out.sentences] == ["spotlight 1", "gmm, slice 1"]
    assert set(drawn) == {"spotlight", "gmm", "lengths"}
    assert drawn["lengths"][0][1] == ["spotlight, slice 1 (n=2)", "gmm, slice 1 (n=2)"]


def test_a_panel_a_slice_with_a_bar_a_token(finished_run, out, drawn):
    members = [[1, 0, 0], [1, 0, 0], [0, 1, 0], *[[0, 0, 0]] * 7]
    analyse([finished_run(reviews(REVIEWS), members)], out, min_count=2, most=3)
    assert drawn["spotlight"] == [
        ("spotlight 1 (n=2)", ["que"], 1),
        ("spotlight 2 (n=1)", [], 0),
        ("spotlight 3 (n=0)", [], 0),
    ]


def test_only_the_first_slices_are_drawn_and_all_are_counted(finished_run, out, drawn):
    members = [[1, 0], [1, 0], *[[0, 1]] * 8]
    numbers = analyse([finished_run(reviews(REVIEWS), members)], out, most=1)
    assert len(drawn["spotlight"]) == len(out.sentences) == 1
    assert set(of_slice(numbers, index=2)) == {"good", "book"}


def test_of_many_runs_some_are_drawn_and_all_are_counted(finished_run, out, drawn, monkeypatch):
    monkeypatch.setattr(tokens, "DRAWN", 1)
    numbers = analyse([finished_run(reviews(REVIEWS), SPANISH, method=name) for name in ("gmm", "ball")], out)
    assert set(drawn) == {"gmm", "lengths"}
    assert set(numbers["method"]) == {"gmm", "ball"}
    assert "first 1 of 2 runs" in out.sentences[-1]


def test_an_empty_slice_and_a_run_without_slices_say_so(finished_run, out, drawn):
    empty, without = finished_run(reviews(REVIEWS), [[0]] * 10), finished_run(reviews(REVIEWS), [[]] * 10, method="gmm")
    numbers = analyse([empty, without], out)
    assert set(numbers["group"]) == {"all"}
    assert out.sentences == ["spotlight 1: no members.", "gmm: no slices were found."]
    assert set(drawn) == {"spotlight"}


def test_nothing_but_stop_words_gives_lengths_alone(finished_run, out, drawn):
    numbers = analyse([finished_run(reviews(["the the", "and", "the"]), [[1], [0], [0]])], out, min_count=1)
    assert set(numbers["measure"]) == {"mean_length"}


def test_a_token_as_long_as_a_book_is_shortened(finished_run, out, drawn):
    endless = "a" * 100_000
    numbers = analyse([finished_run(reviews([endless, endless, "b c"]), [[1], [1], [0]])], out, min_count=1)
    assert list(of_slice(numbers)) == ["a" * 23 + "…"]
    assert drawn["spotlight"][0][1] == ["a" * 23 + "…"]


def test_letters_that_the_font_lacks_become_boxes_in_pictures_only(finished_run, out, drawn):
    numbers = analyse([finished_run(reviews(["好书 é", "好书", "book"]), [[1], [1], [0]])], out, min_count=1)
    assert list(of_slice(numbers)) == ["好书"]
    assert drawn["spotlight"][0][1] == ["□□"]


def test_pictures_hold_no_mathematics_and_no_texts(finished_run, out):
    texts = ["<b>costs</b> $a_b$ and $x^2$ too", "costs a_b 好书", "好书", "free"]
    runs = [finished_run(reviews(texts), [[1], [1], [0], [0]], variant=name) for name in ("price=$a_b$", "")]
    analyse(runs, out, min_count=1)
    assert {picture["file"] for picture in out.pictures} == {
        "tested-spotlight-price=-a_b",
        "tested-spotlight",
        "tested-lengths",
    }
    assert {picture["shows"] for picture in out.pictures} == {None}
    for picture in out.pictures:
        assert (out.folder / f"{picture['file']}.png").stat().st_size < 150_000
    assert "price=$a_b$" in (out.folder / "tested-spotlight-price=-a_b.svg").read_text()


def test_the_strongest_texts_stand_in_a_table(finished_run, out, drawn):
    texts = ['first, "quoted"\n<script>', "second", "third", "other"]
    run = finished_run(
        reviews(texts, label="positive", prediction="negative"),
        [[1], [1], [1], [0]],
        membership=[[0.5], [0.9], [0.1], [0]],
    )
    analyse([run], out, n_texts=2)
    table = pd.read_csv(out.folder / "tested-texts.csv", dtype={"id": str})
    assert list(table) == ["run", "slice", "id", "label", "prediction", "loss", "text"]
    assert list(table["text"]) == ["second", texts[0]]
    assert list(table["id"]) == ["00001", "00000"]


def test_texts_in_the_table_fit_a_spreadsheet(finished_run, out, drawn):
    analyse([finished_run(reviews(["word " * 20_000, "short"]), [[1], [0]])], out)
    assert len(pd.read_csv(out.folder / "tested-texts.csv").loc[0, "text"]) == 5_000


def test_of_pairs_the_question_counts_or_both(finished_run, out, drawn):
    pairs = [
        str(pair) for pair in [("Who's switching?", "Packets\nflow"), ("Why?", 'a "packets" story'), ("No?", "It's")]
    ]
    run = finished_run(reviews(pairs, correct=False), [[1], [1], [0]])
    assert texts_of(run, "first") == ("Who's switching?", "Why?", "No?")
    assert texts_of(run, "both")[0] == "Who's switching?\nPackets\nflow"
    assert of_slice(analyse([run], out, min_count=2)) == {}
    assert list(of_slice(analyse([run], out, min_count=2, pairs="both"))) == ["packets"]


def test_a_text_that_only_begins_like_a_pair_stays_a_text(finished_run):
    run = finished_run(reviews(["('tis the season", "('quoted') it was"]), [[1], [0]])
    assert texts_of(run, "first") == ("('tis the season", "('quoted') it was")


def test_missing_texts_are_empty(finished_run, out, drawn):
    numbers = analyse([finished_run(reviews(["two words", None]), [[1], [1]])], out)
    assert of_slice(numbers, "mean_length")["value"] == 1


def test_a_run_of_pictures_is_left_out_and_said(finished_run, out, drawn):
    faces = finished_run({"loss": [1.0], "correct": [True]}, [[1]], method="gmm")
    numbers = analyse([finished_run(reviews(REVIEWS), SPANISH), faces], out)
    assert set(numbers["method"]) == {"spotlight"}
    assert "gmm: its examples have no texts, so it is left out." in out.sentences


def test_pictures_alone_are_refused(finished_run, out):
    faces = finished_run({"loss": [1.0], "correct": [True], "text": [None]}, [[1]])
    with pytest.raises(InvalidInput, match="none of the 1 runs has texts"):
        analyse([faces], out)


@pytest.mark.parametrize(
    "options", [{"most": 0}, {"n_tokens": 0}, {"n_texts": -1}, {"min_count": 0}, {"smoothing": -1}, {"pairs": "second"}]
)
def test_settings_that_make_no_sense_are_refused(finished_run, out, options):
    with pytest.raises(InvalidInput, match=f"{next(iter(options))} is"):
        analyse([finished_run(reviews(REVIEWS), SPANISH)], out, **options)
