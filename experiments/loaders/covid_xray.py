"""Chest x-rays of patients with COVID-19 and with other diseases of the lung."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch

from experiments.contract import Dataset, Split
from experiments.reading.assembly import assembled
from experiments.reading.division import divide_groups
from experiments.reading.images import ImageFiles
from experiments.reading.sources import Source
from experiments.reading.tables import (
    by_id,
    check_values,
    numbers,
    read_table,
    refuse_empty_classes,
    refuse_rows,
    with_files,
)
from methods.errors import InvalidSetting

COVID = "COVID-19"
CLASSES = (f"no {COVID}", COVID)
COLUMNS = ("patientid", "sex", "age", "finding", "view", "modality", "location", "filename")
VIEWS = ("PA", "AP", "AP Supine", "AP erect", "AP semi erect")
SEXES = {"M": "male", "F": "female", "": "unknown"}
NOT_YET = ("todo", "Unknown")  # findings that nobody has written down
SYNONYMS = {"MERS": "MERS-CoV", "Mycoplasma Bacterial Pneumonia": "Mycoplasma"}
# a finding and what it is a kind of; the later metadata write both: Pneumonia/Viral/COVID-19
KIND_OF: dict[str, str | None] = {
    **dict.fromkeys(("Pneumonia", "No Finding", "Tuberculosis", "ARDS")),
    **dict.fromkeys(("Viral", "Bacterial", "Fungal", "Lipoid", "Aspiration"), "Pneumonia"),
    **dict.fromkeys((COVID, "SARS", "MERS-CoV", "Influenza", "Herpes", "Varicella"), "Viral"),
    **dict.fromkeys(("Chlamydophila", "E.Coli", "Klebsiella", "Legionella"), "Bacterial"),
    **dict.fromkeys(("Mycoplasma", "Nocardia", "Staphylococcus", "Streptococcus"), "Bacterial"),
    **dict.fromkeys(("Aspergillosis", "Pneumocystis"), "Fungal"),
    "H1N1": "Influenza",
    "MRSA": "Staphylococcus",
}


@dataclass(frozen=True)
class CovidXray:
    """COVID-19 image data collection (Cohen et al. 2020): frontal chest x-rays; the label is COVID-19.

    Parameters
    ----------
    folder : str
        Below the data root: `metadata.csv` and `images/`.
    views : tuple of str
        X-rays in these views are used, whatever their letters' case.
    train_share, validation_share : float
        Of the patients, drawn by seed, with and without COVID-19 alike, so that no patient is in two splits; the
        others are the test split.
    partial : bool
        Use the images that are there, even where more than 5% of those in the table are missing.

    Notes
    -----
    The data set of the InfEmbed paper, appendix H. The paper has 535 images, 342 of them of COVID-19, 107 in the test
    split, from the later metadata through torchxrayvision, which by default takes the views PA and AP only
    (`views: [PA, AP]`); it does not say whether it keeps patients together.

    A file that several rows name belongs to the first. Attributes: a yes or no for each finding that occurs, a finding
    implying what it is a kind of (COVID-19: viral, pneumonia); `sex`, `age` in years (not a number where it is
    unknown), `view`, `patient`, `location`.
    """

    version: ClassVar[int] = 1

    folder: str = "covid-chestxray-dataset"
    views: tuple[str, ...] = field(default=VIEWS, metadata={"min_items": 1})
    train_share: float = field(default=0.7, metadata={"above": 0, "below": 1})
    validation_share: float = field(default=0.1, metadata={"min": 0, "below": 1})
    partial: bool = False

    @property
    def source(self) -> Source:
        return Source(
            folder=self.folder,
            instruction=(
                "Get the repository https://github.com/ieee8023/covid-chestxray-dataset (git clone, or its zip file), "
                "so that metadata.csv and images/ lie there."
            ),
            licence="each image has its own, see the column license",
        )

    def load(self, root: Path, seed: int) -> Dataset:
        path = self.source.path(root, "metadata.csv")
        table, notes = self._table(root, path)
        findings = _findings(table["finding"])
        labels = findings[COVID].to_numpy(dtype=np.int64, copy=True)
        refuse_empty_classes(torch.from_numpy(labels), CLASSES, path)
        attributes = pd.concat([findings, table[["sex", "age", "view", "patient", "location"]]], axis=1)
        sizes = {"train": self.train_share, "validation": self.validation_share}
        rows = divide_groups(table["patient"].to_numpy(), sizes, "test", seed, strata=labels)
        return assembled(
            name="covid_xray",
            modality="image",
            class_names=CLASSES,
            splits={name: self._split(root, attributes.iloc[r], labels[r]) for name, r in rows.items()},
            root=root,
            files=[str(path.relative_to(root)), *(self._path(file) for file in table.index)],
            notes=notes,
        )

    def _table(self, root: Path, path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
        """The rows of frontal x-rays that are there, checked, indexed by file name."""
        table, notes = self._frontal(read_table(path, COLUMNS), path)
        check_values(table, "sex", path, SEXES)
        unknown = [any(part not in KIND_OF for part in _parts(finding)) for finding in table["finding"]]
        refuse_rows(table, "finding", path, np.array(unknown), f"some of {', '.join(KIND_OF)}")
        refuse_rows(table, "patientid", path, (table["patientid"] == "").to_numpy(), "the patient's number")
        table, more_notes = with_files(table, table["filename"].map(self._path), root, path, self.partial)
        known = table["age"] != ""
        age = pd.Series(numbers(table[known], "age", path, 0, 120), index=table.index[known]).reindex(table.index)
        table = table.assign(
            age=age,
            sex=table["sex"].map(SEXES),
            patient=table["patientid"],
            location=table["location"].replace("", "unknown"),
        )
        return by_id(table, "filename", path), notes + more_notes

    def _frontal(self, table: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
        """One row for each frontal x-ray, and notes on what was left out."""
        views = [view.lower() for view in self.views]
        frontal = table[(table["modality"] == "X-ray") & table["view"].str.strip().str.lower().isin(views)]
        if frontal.empty:
            raise InvalidSetting(f"{path} has no x-ray in the views {', '.join(self.views)}: set other dataset.views")
        known = frontal[~frontal["finding"].isin(NOT_YET)]
        first = known[~known["filename"].duplicated()]
        left_out = {
            f"show no x-ray in the views {', '.join(self.views)}": len(table) - len(frontal),
            "have no finding yet": len(frontal) - len(known),
            "name a file that an earlier row names": len(known) - len(first),
        }
        notes = (f"{n:,} of {len(table):,} rows of {path.name} {why}: left out" for why, n in left_out.items() if n)
        return first, tuple(notes)

    def _path(self, file: str) -> str:
        return f"{self.folder}/images/{file}"

    def _split(self, root: Path, attributes: pd.DataFrame, labels: np.ndarray) -> Split:
        paths = tuple(self._path(file) for file in attributes.index)
        return Split(
            example_ids=tuple(attributes.index),
            examples=ImageFiles(root, paths, mode="L"),
            labels=torch.from_numpy(labels),
            attributes=attributes,
            paths=paths,
        )


def _findings(written: pd.Series) -> pd.DataFrame:
    """A column of bools for each finding that occurs, and for COVID-19."""
    sets = [{finding for part in _parts(text) for finding in _implied(part)} for text in written]
    occurring = sorted({COVID}.union(*sets))
    return pd.DataFrame({name: [name in found for found in sets] for name in occurring}, index=written.index)


def _parts(written: str) -> list[str]:
    """The names in a cell: "COVID-19, ARDS" as in the earlier metadata, "Pneumonia/Viral/COVID-19" as in the later."""
    names = [name.strip() for name in written.replace("/", ",").split(",")]
    return [SYNONYMS.get(name, name) for name in names]


def _implied(finding: str | None) -> Iterator[str]:
    while finding is not None:
        yield finding
        finding = KIND_OF[finding]
