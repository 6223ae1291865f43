"""On a fixture in the publisher's layout, and on the real files where there are some."""

import pytest
import torch

from experiments.loaders.movielens import MovieLens
from experiments.reading.sources import Absent
from methods.contract import InvalidInput

GENRES = "unknown|0\nAction|1\nComedy|2\n\n"
USERS = ["1|31|F|engineer|55105", "2|18|M|student|T8H1N", "3|64|F|retired|02138"]
ITEMS = [
    "1|Étoile, L' (1994)|01-Jan-1994||http://films.example/1|0|0|1",
    "2|Chase: Part 2 (1971)|4-Feb-1971||http://films.example/2|0|1|1",
    "3|unknown||||1|0|0",
]
BASE = ["1\t1\t5\t880000001", "1\t2\t1\t880000002", "2\t1\t2\t880000003", "2\t3\t3\t880000004", "3\t1\t4\t880000005"]
TEST = ["1\t3\t3\t880000006", "3\t3\t4\t880000007", "3\t2\t1\t880000008"]


def publish(root, encoding="latin-1", **changed):
    """MovieLens 100k as its publisher lays it out; of the files that are named, these lines instead."""
    lines = {"u1_base": BASE, "u1_test": TEST, "u_item": ITEMS, "u_user": USERS} | changed
    folder = root / "ml-100k"
    folder.mkdir(parents=True)
    for name, rows in lines.items():
        (folder / name.replace("_", ".")).write_text("".join(f"{row}\n" for row in rows), encoding=encoding)
    (folder / "u.genre").write_text(GENRES)
    (folder / "u.info").write_text("3 users\n3 items\n8 ratings\n")
    return root


def test_ratings_are_tensors_of_user_item_and_support(tmp_path):
    dataset = MovieLens().load(publish(tmp_path), seed=0)
    test = dataset.split("test")
    assert (dataset.modality, dataset.class_names) == ("table", ("1", "2", "3", "4", "5"))
    assert test.example_ids == ("1-3", "3-2", "3-3")
    assert test.examples.dtype == torch.int64
    assert test.examples.tolist() == [[0, 2, 0], [2, 1, 0], [2, 2, 0]]
    assert test.labels.tolist() == [2, 0, 3]
    assert dataset.split("train").labels.tolist() == [4, 0, 1, 2, 3]


def test_films_and_users_are_described(tmp_path):
    attributes = MovieLens().load(publish(tmp_path), seed=0).split("train").attributes
    assert attributes.loc["1-1", ["title", "release_date", "genre"]].tolist() == [
        "Étoile, L' (1994)",
        "01-Jan-1994",
        "Comedy",
    ]
    assert attributes.loc["1-2", ["release_year", "genre"]].tolist() == [1971, "Action"]
    assert attributes["release_year"].isna().tolist() == [False, False, False, True, False]
    assert attributes.loc["2-3", ["user", "age", "gender", "occupation"]].tolist() == ["2", 18, "M", "student"]


def test_counts_and_averages_are_those_of_the_example_s_split(tmp_path):
    dataset = MovieLens().load(publish(tmp_path), seed=0)
    counted = ["user_ratings", "item_ratings", "item_average"]
    assert dataset.split("test").attributes.loc["3-3", counted].tolist() == [2, 2, 3.5]
    assert dataset.split("train").attributes.loc["2-1", counted].tolist() == [2, 3, pytest.approx(11 / 3)]


def test_the_support_is_the_test_split_only_where_that_is_asked_for(tmp_path):
    honest = MovieLens(validation_share=0.2).load(publish(tmp_path), seed=0)
    leaking = MovieLens(validation_share=0.2, leak_test_ratings=True).load(tmp_path, seed=0)
    assert {n: s.examples[:, 2].unique().tolist() for n, s in honest.splits.items()} == {
        "validation": [0],
        "train": [0],
        "test": [0],
    }
    assert {n: s.examples[:, 2].unique().tolist() for n, s in leaking.splits.items()} == {
        "validation": [0],
        "train": [0],
        "test": [1],
    }
    assert honest.fingerprint != leaking.fingerprint


def test_a_validation_split_is_taken_from_the_training_ratings(tmp_path):
    dataset = MovieLens(validation_share=0.4).load(publish(tmp_path), seed=0)
    assert {name: split.n_examples for name, split in dataset.splits.items()} == {
        "validation": 2,
        "train": 3,
        "test": 3,
    }


def test_a_copy_in_utf_8_reads_the_same(tmp_path):
    here, there = publish(tmp_path / "a"), publish(tmp_path / "b", encoding="utf-8")
    titles = [MovieLens().load(root, seed=0).split("train").attributes["title"].tolist() for root in (here, there)]
    assert titles[0] == titles[1]


def test_a_header_that_a_copy_has_is_no_rating(tmp_path):
    changed = {
        "u1_base": ["user_id\titem_id\trating\ttimestamp", *BASE],
        "u_user": ["user id|age|gender|occupation|zip code", *USERS],
    }
    dataset = MovieLens().load(publish(tmp_path, **changed), seed=0)
    assert dataset.split("train").n_examples == 5
    assert dataset.split("test").examples[:, 0].tolist() == [0, 2, 2]


def test_a_header_alone_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"u1.test line 1: user is 'user_id'"):
        MovieLens().load(publish(tmp_path, u1_test=["user_id\titem_id\trating\ttimestamp"]), seed=0)


def test_a_bad_line_below_a_header_has_its_own_number(tmp_path):
    rows = ["user_id\titem_id\trating\ttimestamp", BASE[0], "1\t2\t6\t880000002"]
    with pytest.raises(InvalidInput, match=r"u1.base line 3: rating is '6', expected one of 1, 2, 3, 4, 5"):
        MovieLens().load(publish(tmp_path, u1_base=rows), seed=0)


@pytest.mark.parametrize("name", ["u1.base", "u1.test", "u.item", "u.user", "u.genre", "u.info"])
def test_of_a_missing_file_it_is_said_what_to_get(tmp_path, name):
    publish(tmp_path)
    (tmp_path / "ml-100k" / name).unlink()
    with pytest.raises(Absent, match=f"{name} is missing. Get ml-100k.zip from https://grouplens.org"):
        MovieLens().load(tmp_path, seed=0)


@pytest.mark.parametrize(
    ("file", "row", "said"),
    [
        ("u1_base", "9\t1\t5\t880000001", "u1.base line 6: user is '9', expected a user of u.user"),
        ("u1_base", "1\t9\t5\t880000001", "u1.base line 6: item is '9', expected an item of u.item"),
        ("u1_base", "1\t3\t0\t880000001", "u1.base line 6: rating is '0', expected one of 1, 2, 3, 4, 5"),
        ("u1_base", "1\t3\tgood\t880000001", "u1.base line 6: rating is 'good'"),
        ("u1_base", "1\t3\t5", "u1.base line 6: timestamp is '', expected a number"),
        ("u1_base", "1,3,5,880000001", "u1.base line 6: user is '1,3,5,880000001'"),
        ("u1_base", "1\t3\t5\t880000001\t0", "u1.base cannot be read as a table: .*line 6"),
        ("u1_base", BASE[1], "u1.base: user-item '1-2' stands in the lines 2 and 6, expected once"),
        ("u1_test", BASE[1], "u1.test line 4: user-item is '1-2', expected a rating that is not in u1.base"),
        ("u_user", "4|old|F|artist|0", "u.user line 4: age is 'old', expected a number in .1, 120."),
        ("u_user", "4|20|X|artist|0", "u.user line 4: gender is 'X', expected one of F, M"),
        ("u_user", "4|20|F||0", "u.user line 4: occupation is '', expected some text"),
        ("u_user", USERS[0], "u.user: user '1' stands in the lines 1 and 4"),
        ("u_item", "4|Short (1990)|01-Jan-1990||x|0|1", "u.item line 4: Comedy is '', expected one of 0, 1"),
        ("u_item", "4|None (1990)|01-Jan-1990||x|0|0|0", "u.item line 4: title is 'None .1990.', expected a film with"),
        ("u_item", "4|When|1.1.90||x|0|0|1", "u.item line 4: release_date is '1.1.90', expected a date like"),
        ("u_item", ITEMS[0], "u.item: item '1' stands in the lines 1 and 4"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(tmp_path, file, row, said):
    rows = {"u1_base": BASE, "u1_test": TEST, "u_user": USERS, "u_item": ITEMS}[file]
    with pytest.raises(InvalidInput, match=said):
        MovieLens().load(publish(tmp_path, **{file: [*rows, row]}), seed=0)


def test_items_with_more_genres_than_there_are_are_refused(tmp_path):
    rows = [f"{row}|0|0" for row in ITEMS]
    with pytest.raises(InvalidInput, match=r"u.item has rows with more fields than its 8 columns"):
        MovieLens().load(publish(tmp_path, u_item=rows), seed=0)


def test_genres_out_of_order_are_refused(tmp_path):
    publish(tmp_path)
    (tmp_path / "ml-100k/u.genre").write_text("unknown|0\nComedy|2\nAction|1\n")
    with pytest.raises(InvalidInput, match=r"u.genre line 2: number is '2', expected 0, 1, 2"):
        MovieLens().load(tmp_path, seed=0)


def test_a_file_that_was_cut_between_two_lines_is_noticed(tmp_path):
    with pytest.raises(InvalidInput, match=r"u.info says that there are 8 ratings; u1.base and u1.test have 7: get"):
        MovieLens().load(publish(tmp_path, u1_test=TEST[:2]), seed=0)


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"u1.test has no rows, expected at least one"):
        MovieLens().load(publish(tmp_path, u1_test=[]), seed=0)


@pytest.mark.parametrize("file", ["u1.base", "u.item", "u.user", "u.genre", "u.info"])
def test_another_encoding_or_another_kind_of_file_is_refused(tmp_path, file):
    path = publish(tmp_path) / "ml-100k" / file
    content = path.read_bytes()
    for mangled in (content.decode("latin-1").encode("utf-16"), b"\x1f\x8b\x08\x00" + bytes(range(256))):
        path.write_bytes(mangled)
        with pytest.raises(InvalidInput, match=file):
            MovieLens().load(tmp_path, seed=0)


def test_a_rating_that_nobody_gave_is_named(tmp_path):
    rows = [row.replace("\t4\t", "\t5\t") for row in BASE]
    with pytest.raises(InvalidInput, match=r"u1.base has no example of the class '4'"):
        MovieLens().load(publish(tmp_path, u1_base=rows), seed=0)


def test_what_is_downloaded_lies_where_it_is_read(tmp_path):
    names = {path.name for path in (publish(tmp_path) / "ml-100k").iterdir()}
    assert {download.to for download in MovieLens().source.downloads} == names


def test_the_real_files(data):
    dataset = MovieLens(validation_share=0.1).load(data("ml-100k"), seed=0)
    assert {name: split.n_examples for name, split in dataset.splits.items()} == {
        "validation": 8_000,
        "train": 72_000,
        "test": 20_000,
    }
    test = dataset.split("test")
    assert test.labels.bincount().tolist() == [1391, 2192, 5182, 6778, 4457]
    assert test.examples[:, 0].unique().numel() == 459
    assert test.examples[:, 1].unique().numel() == 1410
    # as in figures D6 and D7 of the Spotlight paper
    fargo = test.attributes[test.attributes["title"] == "Fargo (1996)"].iloc[0]
    assert (fargo["genre"], fargo["item_ratings"], round(fargo["item_average"], 1)) == ("Crime", 113, 4.3)
    assert test.attributes.set_index("user")["user_ratings"]["13"].iloc[0] == 263
    assert (test.attributes["title"] == "Misérables, Les (1995)").any()


def test_the_leak_trains_no_model_again(tmp_path):
    publish(tmp_path)
    honest, leaking = (MovieLens(leak_test_ratings=leak).load(tmp_path, seed=0) for leak in (False, True))
    assert honest.fingerprint != leaking.fingerprint
    assert honest.train_fingerprint == leaking.train_fingerprint
