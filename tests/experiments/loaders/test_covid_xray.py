"""On a fixture in the publisher's layout, and on the real files where there are some."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments.loaders.covid_xray import CovidXray
from experiments.reading.sources import Absent, Partial
from methods.contract import InvalidInput

# as in the publisher's file, which has more columns and ends its header with a comma
COLUMNS = ["patientid", "offset", "sex", "age", "finding", "view", "modality", "location", "folder", "filename"]
ROWS = [
    *([str(i), "0", "M", "65", "COVID-19", "PA", "X-ray", "Town, Country", "images", f"c{i}.jpeg"] for i in range(12)),
    *([str(i), "", "F", "", "Klebsiella", "AP", "X-ray", "", "images", f"k{i}.PNG"] for i in range(20, 28)),
]
BESIDE = [
    ["0", "1", "M", "65", "COVID-19", "L", "X-ray", "", "images", "side.png"],
    ["0", "1", "M", "65", "COVID-19", "Axial", "CT", "", "volumes", "ct.nii.gz"],
]


def row(**changes):
    """A row of a patient whom the others do not have."""
    usual = ["99", "0", "F", "40", "SARS", "PA", "X-ray", "", "images", "x.jpg"]
    return list((dict(zip(COLUMNS, usual, strict=True)) | changes).values())


def publish(root, rows=(*ROWS, *BESIDE), missing=()):
    """The collection as its publisher lays it out."""
    folder = root / "covid-chestxray-dataset"
    (folder / "images").mkdir(parents=True)
    table = pd.DataFrame([[*r, ""] for r in rows], columns=[*COLUMNS, ""])
    table.to_csv(folder / "metadata.csv", index=False)
    pictures = {r[9] for r in rows if r[8] == "images"} - set(missing)
    for name in pictures:
        Image.fromarray(np.full((4, 6, 3), 90, dtype=np.uint8)).save(folder / "images" / name, format="JPEG")
    return root


def loaded(root, **settings):
    return CovidXray(**settings).load(root, seed=0)


def attributes(dataset):
    return pd.concat([split.attributes for split in dataset.splits.values()])


def labels(dataset):
    return {i: int(y) for s in dataset.splits.values() for i, y in zip(s.example_ids, s.labels, strict=True)}


def test_labels_attributes_and_pictures_belong_together(tmp_path):
    dataset = loaded(publish(tmp_path))
    assert dataset.class_names == ("no COVID-19", "COVID-19")
    assert {name[0] for name, label in labels(dataset).items() if label} == {"c"}
    described = attributes(dataset)
    assert described.loc["c3.jpeg", ["sex", "age", "view", "patient", "location"]].tolist() == [
        "male",
        65.0,
        "PA",
        "3",
        "Town, Country",
    ]
    train = dataset.split("train")
    assert train.paths[0] == f"covid-chestxray-dataset/images/{train.example_ids[0]}"
    assert (train.examples[0].mode, train.examples[0].size) == ("L", (6, 4))


def test_what_is_unknown_is_said_to_be(tmp_path):
    described = attributes(loaded(publish(tmp_path, rows=[*ROWS, row(sex="")])))
    assert np.isnan(described.loc["k20.PNG", "age"])
    assert described.loc["k20.PNG", "location"] == "unknown"
    assert described.loc["x.jpg", "sex"] == "unknown"


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("COVID-19", {"COVID-19", "Viral", "Pneumonia"}),
        ("Pneumonia/Viral/COVID-19", {"COVID-19", "Viral", "Pneumonia"}),
        ("COVID-19, ARDS", {"COVID-19", "Viral", "Pneumonia", "ARDS"}),
        ("Mycoplasma Bacterial Pneumonia", {"Mycoplasma", "Bacterial", "Pneumonia"}),
        ("Pneumonia/Bacterial/Staphylococcus/MRSA", {"MRSA", "Staphylococcus", "Bacterial", "Pneumonia"}),
        ("Pneumonia/Viral/Herpes ", {"Herpes", "Viral", "Pneumonia"}),
        ("Pneumocystis", {"Pneumocystis", "Fungal", "Pneumonia"}),
        ("Pneumonia", {"Pneumonia"}),
        ("Tuberculosis", {"Tuberculosis"}),
        ("No Finding", {"No Finding"}),
    ],
)
def test_a_finding_implies_what_it_is_a_kind_of(tmp_path, written, found):
    dataset = loaded(publish(tmp_path, rows=[*ROWS, row(finding=written)]))
    described = attributes(dataset).loc["x.jpg"]
    assert {name for name, value in described.items() if value is True or value is np.True_} == found
    assert labels(dataset)["x.jpg"] == int("COVID-19" in found)


def test_only_frontal_x_rays_are_used_and_the_others_counted(tmp_path):
    dataset = loaded(publish(tmp_path))
    assert len(labels(dataset)) == 20
    views = "PA, AP, AP Supine, AP erect, AP semi erect"
    assert dataset.notes == (f"2 of 22 rows of metadata.csv show no x-ray in the views {views}: left out",)


def test_the_views_are_a_setting(tmp_path):
    publish(tmp_path, rows=[*ROWS, row(view="AP Erect"), row(view="L", filename="y.jpg")])
    assert "x.jpg" in labels(loaded(tmp_path))
    assert set(labels(loaded(tmp_path, views=("PA", "AP", "l")))) >= {"y.jpg", "c1.jpeg"}
    with pytest.raises(InvalidInput, match=r"has no x-ray in the views Oblique: set other dataset.views"):
        loaded(tmp_path, views=("Oblique",))


def test_a_file_that_is_named_again_belongs_to_its_first_row(tmp_path):
    again = row(filename="c1.jpeg", patientid="77")
    dataset = loaded(publish(tmp_path, rows=[*ROWS, again]))
    assert labels(dataset)["c1.jpeg"] == 1
    assert attributes(dataset).loc["c1.jpeg", "patient"] == "1"
    assert dataset.notes == ("1 of 21 rows of metadata.csv name a file that an earlier row names: left out",)


@pytest.mark.parametrize("finding", ["todo", "Unknown"])
def test_what_has_no_finding_yet_is_left_out(tmp_path, finding):
    dataset = loaded(publish(tmp_path, rows=[*ROWS, row(finding=finding)]))
    assert "x.jpg" not in labels(dataset)
    assert dataset.notes == ("1 of 21 rows of metadata.csv have no finding yet: left out",)


def test_no_patient_is_in_two_splits(tmp_path):
    rows = [[*r[:9], f"{day}{r[9]}"] for r in ROWS for day in range(3)]
    dataset = loaded(publish(tmp_path, rows=rows), validation_share=0.2)
    patients = [set(split.attributes["patient"]) for split in dataset.splits.values()]
    assert sum(len(p) for p in patients) == len(set().union(*patients)) == 20
    assert [split.n_examples for split in dataset.splits.values()] == [42, 12, 6]
    assert all(set(split.labels.tolist()) == {0, 1} for split in dataset.splits.values())


def test_without_the_data_it_is_said_what_to_get(tmp_path):
    with pytest.raises(Absent, match=r"metadata.csv is missing. Get the repository https://github.com/ieee8023"):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"finding": "COVID19"}, "finding is 'COVID19', expected some of Pneumonia, "),
        ({"finding": ""}, "finding is '', expected some of"),
        ({"sex": "X"}, "sex is 'X', expected one of M, F"),
        ({"age": "old"}, r"age is 'old', expected a number in \[0, 120\]"),
        ({"patientid": ""}, "patientid is '', expected the patient's number"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path, changes, said):
    with pytest.raises(InvalidInput, match=f"metadata.csv line 22: {said}"):
        loaded(publish(tmp_path, rows=[*ROWS, row(**changes)]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read as a table"),
        (b"Patientid,finding\n1,SARS\n", "has no column 'patientid', expected"),
        ("patientid,finding\n1,caf\u00e9\n".encode("latin-1"), "cannot be read as a table: 'utf-8' codec"),
        ((",".join(COLUMNS) + "\n").encode(), "has no rows"),
        ((",".join(COLUMNS) + '\n1,0,"M').encode(), "cannot be read as a table"),
        ((",".join(COLUMNS) + "\n" + ",".join([*row(), "a", "b"]) + "\n").encode(), "has rows with more fields"),
    ],
)
def test_a_table_that_is_not_the_publisher_s_is_refused(tmp_path, content, said):
    publish(tmp_path)
    (tmp_path / "covid-chestxray-dataset/metadata.csv").write_bytes(content)
    with pytest.raises(InvalidInput, match=f"metadata.csv {said}"):
        loaded(tmp_path)


def test_a_class_without_images_is_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"metadata.csv has no example of the class 'no COVID-19'"):
        loaded(publish(tmp_path, rows=ROWS[:12]))


def test_missing_images_must_be_agreed_to(tmp_path):
    publish(tmp_path, missing={"c0.jpeg", "k20.PNG"})
    with pytest.raises(Partial, match="2 of the 20 files"):
        loaded(tmp_path)
    assert len(labels(loaded(tmp_path, partial=True))) == 18


def test_the_images_are_all_missing_where_their_folder_is(tmp_path):
    publish(tmp_path, missing={r[9] for r in (*ROWS, *BESIDE)})
    with pytest.raises(Absent, match="20 of the 20 files"):
        loaded(tmp_path)


def test_the_real_files(data):
    dataset = loaded(data("covid-chestxray-dataset"))
    found = labels(dataset)
    described = attributes(dataset)
    assert len(found) == 527
    assert sum(found.values()) == 427
    assert described["patient"].nunique() == 309
    assert dataset.notes[1:] == (
        "4 of 673 rows of metadata.csv name a file that an earlier row names: left out",
        "11 of 538 rows of metadata.csv name a file that is missing: left out",
    )
    assert dataset.split("test").examples[0].mode == "L"
