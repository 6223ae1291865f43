"""dcbench's slice discovery problems: models that ran elsewhere, with what they gave."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import quote

from experiments.contract import ProblemSet
from experiments.reading.dcbench import INDEX, Choice, artifacts_of, chosen_entries, folder_of
from experiments.reading.panels import META
from experiments.reading.problem_sets import problem_set
from experiments.reading.sources import Download, Source

BUCKET = "https://storage.googleapis.com/dcbench"

Kind = Literal["rare", "correlation", "noisy_label"]


@dataclass(frozen=True)
class DCBench:
    """Problems of dcbench (Eyuboglu et al. 2022), read without dcbench: stored predictions, activations, CLIP vectors.

    All problems that the settings choose are one run. Methods are fitted on the validation split and scored on the test
    split.

    Parameters
    ----------
    problem, kind, dataset : str or tuple of str, optional
        Which problems: by id, by kind ("rare", "correlation", "noisy_label"), by where the images are from ("imagenet",
        "celeba" ...); all of them where these are left out.
    embedding : {"activations", "clip"}
        Of the model itself, or of CLIP.
    partial : bool
        Use the problems that are there, even where more than 5% of those chosen are missing.
    folder : str
        Below the data root: `slice_discovery/problems.yaml`, and the artifacts where it says.

    Notes
    -----
    The models' weights (`model.pt`) are not read: they are pickles with a class in them, which could run any code.
    """

    version: ClassVar[int] = 1

    problem: str | tuple[str, ...] | None = field(default=None, metadata={"min_items": 1})
    kind: Kind | tuple[Kind, ...] | None = field(default=None, metadata={"min_items": 1})
    dataset: str | tuple[str, ...] | None = field(default=None, metadata={"min_items": 1})
    embedding: Literal["activations", "clip"] = "activations"
    partial: bool = False
    folder: str = "dcbench"

    @property
    def source(self) -> Source:
        return Source(
            folder=self.folder,
            instruction=f"Get {INDEX} and the artifacts that it names from {BUCKET}.",
            licence="as the images' own",
            downloads=(Download(f"{BUCKET}/{INDEX}", INDEX),),
            more=self._artifacts,
        )

    def _artifacts(self, root: Path) -> tuple[str, tuple[Download, ...]]:
        """Those that are read of the chosen problems; problems may share some."""
        folder = root / self.folder
        entries = chosen_entries(folder / INDEX, self._chosen)
        ids: dict[str, None] = {}
        for entry in entries:
            for name, artifact_id in artifacts_of(entry, self.embedding).items():
                folder_of(folder, entry, name)  # refuses an id that leads elsewhere
                ids[artifact_id] = None
        downloads = (Download(f"{BUCKET}/{quote(one)}.mk.tar.gz", f"{one}.mk", unpack=True, holds=META) for one in ids)
        problems = "1 problem" if len(entries) == 1 else f"{len(entries):,} problems"
        return f"{len(ids):,} artifacts of {problems}", tuple(downloads)

    @property
    def _command(self) -> str:
        """What fetches the problems that these settings choose."""
        given = {
            name: value if isinstance(value, str) else f"[{','.join(value)}]"
            for name, value in self._chosen.items()
            if value
        }
        given |= {} if self.embedding == "activations" else {"embedding": self.embedding}
        return " ".join(["slicebench fetch dcbench", *(f"{name}={value}" for name, value in given.items())])

    @property
    def _chosen(self) -> Choice:
        return {"problem": self.problem, "kind": self.kind, "dataset": self.dataset}

    def load(self, root: Path, seed: int) -> ProblemSet:
        """`seed` is not needed: the splits are dcbench's."""
        self.source.path(root, INDEX)
        return problem_set("dcbench", root / self.folder, self._chosen, self.embedding, self.partial, self._command)
