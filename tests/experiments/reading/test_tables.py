import pandas as pd
import pytest

from experiments.reading.sources import Absent, Partial
from experiments.reading.tables import by_id, check_values, codes, numbers, read_table, with_files
from methods.contract import InvalidInput


@pytest.fixture
def written(tmp_path):
    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_all_columns_are_texts_and_lines_count_from_the_top(written):
    table = read_table(written("id,age\n07,NA\n8,3\n"), ["id", "age"])
    assert table["id"].tolist() == ["07", "8"]
    assert table["age"].tolist() == ["NA", "3"]
    assert table.index.tolist() == [2, 3]


def test_without_a_header_the_first_line_is_one(written):
    assert read_table(written("1,2\n"), ["a"], names=["a", "b"]).index.tolist() == [1]


def test_lines_that_are_skipped_count(written):
    assert read_table(written("about\n\na\n1\n"), ["a"], skiprows=2).index.tolist() == [4]


@pytest.mark.parametrize("header", ["id,age\n", "\n\nid,age\n", "id,age\r\n"])
@pytest.mark.parametrize("blank", ["", "  ", ",", " , "])
def test_blank_lines_are_no_rows_and_count_as_lines(written, header, blank):
    path = written(f"{header}1,2\n{blank}\n3,4\n\n{blank}\n5,x\n\n")
    table = read_table(path, ["id", "age"])
    assert table["id"].tolist() == ["1", "3", "5"]
    first = header.count("\n") + 1
    assert table.index.tolist() == [first, first + 2, first + 5]
    with pytest.raises(InvalidInput, match=f"line {first + 5}: age is 'x'"):
        numbers(table, "age", path, 0, 9)


def test_blank_lines_below_skipped_ones_count_too(written):
    assert read_table(written("@DATA\n\n1\n\n2\n"), ["a"], names=["a"], skiprows=1).index.tolist() == [3, 5]


def test_where_texts_have_line_breaks_rows_are_not_called_lines(written):
    path = written('id,text\n1,"two\nlines"\n2,one\n2,one\n')
    table = read_table(path, ["id", "text"])
    with pytest.raises(InvalidInput, match="record 3: id is '2'"):
        check_values(table, "id", path, "1")
    with pytest.raises(InvalidInput, match="stands in the records 3 and 4"):
        by_id(table, "id", path)


def test_spaces_around_names_of_columns_do_no_harm(written):
    assert list(read_table(written("id, age ,sex\n1,2,M\n"), ["id", "age", "sex"]).columns) == ["id", "age", "sex"]
    with pytest.raises(InvalidInput, match="has two columns called 'id'"):
        read_table(written("id, id\n1,2\n"), ["id"])


def test_a_comma_at_the_end_of_each_row_is_suspected(written):
    with pytest.raises(InvalidInput, match=r"more fields than its 2 columns \(do rows end in ','"):
        read_table(written("id,age\n1,2,\n3,4,\n"), ["id", "age"])


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_an_own_file_in_another_encoding_is_to_be_saved_anew(written, encoding):
    with pytest.raises(InvalidInput, match=r"table\.csv .*: save it as UTF-8$"):
        read_table(written("id\né\n".encode(encoding)), ["id"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read as a table"),
        ("id,age\n", "has no rows"),
        ("id,years\n1,2\n", "has no column 'age', expected id, age; it has id, years"),
        (b"id,age\n1,\xff\xfe\n", "cannot be read as a table"),
        ("id,age\n\n,\n", "has no rows"),
        ('id,age\n1,2\n3,"4\n', "cannot be read as a table"),
        ("id,age\n1,2\n3,4,5,6\n", "line 3"),
        ("id,age\n1,2,3\n3,4,5\n", "rows with more fields than its 2 columns"),
    ],
)
def test_what_is_no_such_table_is_refused_with_its_path(written, text, said):
    path = written(text)
    with pytest.raises(InvalidInput, match=said) as refused:
        read_table(path, ["id", "age"])
    assert str(path) in str(refused.value)


def test_a_table_that_is_not_there_is_absent(tmp_path):
    with pytest.raises(Absent, match=r"none\.csv is missing"):
        read_table(tmp_path / "none.csv", ["id"])


def test_a_byte_order_mark_is_no_part_of_the_first_name(written):
    assert list(read_table(written("\ufeffid\n1\n"), ["id"]).columns) == ["id"]


def test_numbers_outside_the_range_are_named_with_their_line(written):
    path = written("age\n3\nx\n700\n")
    table = read_table(path, ["age"])
    with pytest.raises(InvalidInput, match=r"line 3: age is 'x', expected a number in \[0, 120\] \(and 1 other row"):
        numbers(table, "age", path, 0, 120)
    assert numbers(table.iloc[:1], "age", path, 0, 120).tolist() == [3]


def test_names_become_labels_and_others_are_refused_with_their_line(written):
    path = written("sex\nF\nM\n?\n")
    table = read_table(path, ["sex"])
    assert codes(table.iloc[:2], "sex", path, {"M": 1, "F": 0}).tolist() == [0, 1]
    with pytest.raises(InvalidInput, match=r"line 4: sex is '\?', expected one of M, F"):
        codes(table, "sex", path, {"M": 1, "F": 0})
    with pytest.raises(InvalidInput, match=r"expected one of M, F \(ask them\)"):
        check_values(table, "sex", path, "MF", "ask them")


def test_an_id_that_is_there_twice_is_named_with_its_lines(written):
    path = written("id\na\nb\na\n")
    with pytest.raises(InvalidInput, match="id 'a' stands in the lines 2 and 4"):
        by_id(read_table(path, ["id"]), "id", path)


@pytest.mark.parametrize("missing", [None, float("nan"), "", " "])
def test_an_id_that_is_missing_is_named_with_its_row(tmp_path, missing):
    table = pd.DataFrame({"id": ["b", missing, "a"]}, index=pd.RangeIndex(3, name="row"))
    with pytest.raises(InvalidInput, match=r"own\.parquet row 1: id is .*, expected an id$"):
        by_id(table, "id", tmp_path / "own.parquet")


def test_rows_come_in_the_order_of_their_ids(written):
    path = written("id\n10\n9\nZ\na\n")
    assert by_id(read_table(path, ["id"]), "id", path).index.tolist() == ["10", "9", "Z", "a"]


def filed(tmp_path, n_there, n=20):
    (tmp_path / "images").mkdir(exist_ok=True)
    for row in range(n_there):
        (tmp_path / f"images/{row}.png").touch()
    table = pd.DataFrame({"file": [f"images/{row}.png" for row in range(n)]})
    return table, table["file"], tmp_path, tmp_path / "table.csv"


def test_a_few_missing_files_are_left_out_and_counted(tmp_path):
    table, notes = with_files(*filed(tmp_path, 19), partial=False)
    assert len(table) == 19
    assert notes == ("1 of 20 rows of table.csv name a file that is missing: left out",)


def test_many_missing_files_must_be_agreed_to(tmp_path):
    with pytest.raises(Partial, match=r"2 of the 20 files .* are missing .*18.png.*dataset.partial=true"):
        with_files(*filed(tmp_path, 18), partial=False)
    assert len(with_files(*filed(tmp_path, 18), partial=True)[0]) == 18


def test_where_no_file_is_there_nothing_can_be_agreed_to(tmp_path):
    with pytest.raises(Absent):
        with_files(*filed(tmp_path, 0), partial=True)


def test_a_whole_set_has_no_note(tmp_path):
    assert with_files(*filed(tmp_path, 20), partial=False)[1] == ()
