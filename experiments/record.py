"""Write the run folder: what defines a run, how far it is, and what it found."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
import yaml

import evaluation.scores
from experiments import inference, training
from experiments.audit import Audit
from experiments.cache import waiting_lock
from experiments.clock import counting
from experiments.console import progress_bars, say
from experiments.contract import Dataset, Problem, ProblemSet
from experiments.corruption import Problems, Unmade
from experiments.discovery import Refusal, refused_row
from experiments.embedding import Embedded
from experiments.errors import line_of
from experiments.files import write_joined, write_json, write_npz, write_parquet, write_text
from experiments.keys import key_of
from experiments.runs import COLUMNS, check_definition, read_content
from experiments.settings import Settings
from experiments.stamp import stamp
from methods.contract import InvalidInput, Slices, Unsupported

TABLES = ("examples", "opponents", "coherence", "truth", "relabelled")
FITTED = "fitted_"  # what arrays about the half that a method was fitted on begin with
WHOLE_NUMBERS = ("true_slice", "slice", "k", "seed")  # columns that may be absent in a row, hence nullable


@dataclass(frozen=True)
class Part:
    """A block of problems: the unit of fitting at once, and of resuming."""

    index: int
    problems: Sequence[Problem]
    unmade: Sequence[Unmade] = ()


class Record:
    """The run folder of one run.

    Parameters
    ----------
    settings : Settings
    definition : dict
        Everything that the result depends on; its key names the folder.
    """

    def __init__(self, settings: Settings, definition: dict[str, Any]) -> None:
        self.settings, self.definition = settings, definition
        self.name = f"{settings.method.name}-{key_of(definition)}"
        self.folder = settings.paths.results / settings.dataset.name.split(" ")[0] / self.name
        self.content: dict[str, Any] = {}

    @classmethod
    def open(cls, settings: Settings, dataset: Dataset | ProblemSet) -> Self:
        """The folder of this run, made where it is new.

        Raises
        ------
        InvalidInput
            Where the folder says that it belongs to another run, naming the field.
        """
        record = cls.planned(settings, dataset)
        config = record.folder / "config.yaml"
        if not config.exists():
            write_text(config, yaml.safe_dump(record.definition, sort_keys=False))
        return record

    @classmethod
    def planned(cls, settings: Settings, dataset: Dataset | ProblemSet) -> Self:
        """The same, but nothing is written where the folder is new."""
        record = cls(settings, definition_of(settings, dataset))
        if any((record.folder / name).exists() for name in ("config.yaml", "run.json")):
            check_definition(record.folder, record.definition)
        return record

    def before(self) -> dict[str, Any]:
        """What the folder says of earlier work on this run."""
        return read_content(self.folder) or {}

    @property
    def done(self) -> bool:
        """Whether the folder holds a finished run."""
        return is_done(self.folder)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do; says so to the person at the terminal."""
        if self.done:
            say(f"{self.folder.parent.name}/{self.name}: done before, skipped")
        return self.done

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(waiting_lock(self.folder / "lock", f"the run {self.name}"))
            if not self.done:  # under the lock: another process may just have finished it
                self.content = self._begun()
                self._save()
                stack.enter_context(progress_bars(self._note))
                stack.enter_context(counting(self.content["seconds"]))
            self._stack = stack.pop_all()  # nothing is held where one of these fails
        self._start = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        # after a KeyboardInterrupt the folder stays as a kill leaves it: nobody works on it, and it is not done
        with self._stack:
            if isinstance(error, Exception):
                refusal = isinstance(error, Unsupported)
                self.content |= {"status": "failed", "error": line_of(error), "refusal": refusal}
                with suppress(OSError):  # the folder then stays as a kill leaves it; the first error is to be shown
                    self._save()

    def unfinished_parts(self, problems: Problems) -> Iterator[Part]:
        """The blocks of problems that are not in the folder yet."""
        size = self.content["problems_per_part"]
        blocks = [problems[start : start + size] for start in range(0, len(problems), size)]
        self._parts = [self._part(index) for index in range(len(blocks))]
        for index, block in enumerate(blocks):
            if not self._is_complete(index, block.names):
                made = list(block)
                unmade = [one for one in made if isinstance(one, Unmade)]
                yield Part(index, [one for one in made if isinstance(one, Problem)], unmade)

    def note_data(self, data: Dataset | ProblemSet) -> None:
        """Keep, and say, what a reader of the results must know of the data."""
        self.content["dataset_notes"] = list(data.notes)
        # where pictures are found again: nothing that defines the run, whose data may lie elsewhere
        self.content["data"] = {"root": str(self.settings.paths.data), **self.settings.dataset.own_paths}
        if isinstance(data, ProblemSet):
            self.content.setdefault("notes_of_problems", {})
        for note in data.notes:
            say(f"{data.name}: {note}")

    def note_audit(self, audit: Audit) -> None:
        """Keep, and say, what embeddings have to say about how they were made."""
        self.content["embedding"] = _reports(audit.embedded)
        explained = {} if audit.explanations is None else {"opponents": audit.explanations.scored}
        reports = (self.content["embedding"] | _reports(explained)).values()
        for note in dict.fromkeys(note for report in reports for note in report.get("notes", ())):
            say(f"embedding: {note}")

    def write(
        self,
        part: Part,
        found: Mapping[str, Slices | Refusal],
        fitted: Mapping[str, Slices],
        scores: Sequence[dict[str, Any]],
        **tables: pd.DataFrame,
    ) -> None:
        """Keep a block's slices, scores and whatever other tables have rows; the scores make it complete."""
        others = {name: reason for name, reason in self.content["refused"].items() if name not in found}
        refused = {name: f.reason for name, f in found.items() if isinstance(f, Refusal)}
        self.content["refused"] = others | refused | {one.name: one.reason for one in part.unmade}
        self._note_stored(part.problems)
        self._save()
        slices = {name: f for name, f in found.items() if isinstance(f, Slices)}
        write_npz(self._part(part.index).with_suffix(".npz"), _arrays(slices) | _arrays(fitted, FITTED))
        for name, table in tables.items():
            if len(table):
                write_parquet(self._part(part.index).with_suffix(f".{name}"), table)
        unmade = [{"problem": o.name, "group": o.group, "kind": o.kind, **refused_row()} for o in part.unmade]
        write_parquet(self._part(part.index), self._tidy([*scores, *unmade]))

    def write_examples(self, examples: pd.DataFrame) -> None:
        """Keep what is known about each example: `examples.parquet`."""
        write_parquet(self.folder / "examples.parquet", examples)

    def finish(self) -> None:
        """Put the parts together and mark the run as done.

        Raises
        ------
        Unsupported
            Where the method refused every problem, with its reason.
        """
        scores = pd.concat([pd.read_parquet(part) for part in self._parts], ignore_index=True)
        if (scores["metric"] == "refused").all():
            for part in self._parts:  # the next try starts from the first problem again
                part.unlink()
            raise Unsupported(next(iter(self.content["refused"].values())))
        write_parquet(self.folder / "scores.parquet", scores)
        files = [self.folder / "scores.parquet", *self._put_together()]
        files += [path for part in self._parts for path in (part, part.with_suffix(".npz"))]
        self.content["files"] = {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in files}
        self.content["status"] = "done"
        self._save()
        seconds = time.perf_counter() - self._start
        say(f"{self.folder.parent.name}/{self.name}: done in {seconds:.1f} s")

    def summary(self) -> dict[str, float]:
        """The mean of each metric under each protocol, over the problems of this run."""
        scores = pd.read_parquet(self.folder / "scores.parquet").dropna(subset="protocol")
        means = scores.groupby(["protocol", "metric", "k"], dropna=False)["value"].mean()
        return {f"{p}/{m}" + ("" if pd.isna(k) else f"/{k}"): float(v) for (p, m, k), v in means.items()}

    def _put_together(self) -> list[Path]:
        """The other tables as they are now, of all parts; those of many problems do not fit into memory together."""
        for name in TABLES:
            paths = [part.with_suffix(f".{name}") for part in self._parts]
            there = [path for path in paths if path.exists()]
            if there:
                write_joined(self.folder / f"{name}.parquet", there)
        return [path for path in (self.folder / f"{name}.parquet" for name in TABLES) if path.exists()]

    def _note_stored(self, problems: Sequence[Problem]) -> None:
        """Of problems with a data set of their own, what there is to know of it."""
        noted = self.content.get("notes_of_problems")
        audits = {problem.name: problem.audit for problem in problems if problem.audit is not None}
        for name, audit in audits.items() if noted is not None else ():
            report = {"notes": list(audit.dataset.notes), "embedding": _reports(audit.embedded)}
            noted |= {name: report} if any(report.values()) else {}

    def _begun(self) -> dict[str, Any]:
        before, now = self.before(), stamp(self.settings)
        session = {name: now[name] for name in ("git", "device", "threads", "packages")}
        return {
            **now,
            # a run that was taken up again was not made with one stamp
            "sessions": [*before.get("sessions", []), session],
            "definition": self.definition,
            "scale": asdict(self.settings.scale),
            "status": "running",
            "seeds": asdict(self.settings.seeds),
            "seconds": before.get("seconds", {}),
            "refused": before.get("refused", {}),
            **{name: before[name] for name in ("notes_of_problems",) if name in before},
            # a resumed run keeps its blocks, whatever the settings say now
            "problems_per_part": before.get("problems_per_part", self.settings.compute.problems_per_part),
        }

    def _save(self) -> None:
        write_json(self.folder / "run.json", self.content)

    def _note(self, what: str, done: int, total: int) -> None:
        with suppress(OSError):  # news, which no run needs
            write_json(self.folder / "progress.json", {"what": what, "done": done, "total": total, "time": time.time()})

    def _is_complete(self, index: int, names: Sequence[str]) -> bool:
        """Whether this part is there, whole, and holds these problems."""
        try:
            scored = set(pd.read_parquet(self._part(index), columns=["problem"])["problem"])
            path = self._part(index).with_suffix(".npz")
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                found = {name.rpartition("/")[0] for name in arrays}
        except (OSError, ValueError, zipfile.BadZipFile):  # absent or cut off: it is made again
            return False
        if found and "notes_of_problems" in self.content and not self._part(index).with_suffix(".examples").exists():
            return False  # stored problems have examples of their own
        return scored == set(names) and found <= scored and scored - found <= set(self.content["refused"])

    def _part(self, index: int) -> Path:
        return self.folder / "parts" / f"{index:03d}.parquet"

    def _tidy(self, scores: Sequence[dict[str, Any]]) -> pd.DataFrame:
        names = {g: getattr(self.settings, g).name for g in ("dataset", "model", "embedding", "corruption", "method")}
        run = {**names, "variant": self.settings.variant, "run": self.name, "seed": self.settings.seeds.method}
        frame = pd.DataFrame([{**run, **row} for row in scores], columns=list(COLUMNS))
        return frame.astype(dict.fromkeys(WHOLE_NUMBERS, "Int64") | {"value": "float64", "protocol": "str"})


def is_done(folder: Path) -> bool:
    """Whether this folder holds a finished run, with all that it wrote."""
    content = read_content(folder) or {}
    return content.get("status") == "done" and all(
        (folder / name).exists() and (folder / name).stat().st_size == size
        for name, size in content.get("files", {"scores.parquet": -1}).items()
    )


def _reports(embedded: Mapping[str, Embedded]) -> dict[str, Any]:
    return {name: dict(one.report) for name, one in embedded.items() if one.report}


def definition_of(settings: Settings, dataset: Dataset | ProblemSet) -> dict[str, Any]:
    """Everything that the result of a run depends on, as json values: settings, data, versions of the code."""
    components = ("dataset", "model", "embedding", "method", "corruption")
    versions = {group: getattr(settings, group).version for group in components}
    stages = {"training": training.VERSION, "inference": inference.VERSION, "scores": evaluation.scores.VERSION}
    if settings.explainer is not None:
        stages["opponents"] = settings.explainer.version
    return {**settings.defining(), "fingerprint": dataset.fingerprint, "versions": {**versions, **stages}}


def read_slices(folder: Path, problem: str, half: str = "") -> Slices:
    """The slices that a run found for one of its problems, on the half that was scored or (`FITTED`) on the other.

    Raises
    ------
    InvalidInput
        Where the run has no slices for a problem of this name.
    """
    for path in sorted((folder / "parts").glob("*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            if f"{problem}/{half}members" in arrays:
                return Slices(
                    tuple(arrays[f"{problem}/{half}example_ids"].tolist()),
                    torch.from_numpy(arrays[f"{problem}/{half}membership"]),
                    torch.from_numpy(arrays[f"{problem}/{half}members"]),
                    tuple(json.loads(str(arrays[f"{problem}/{half}diagnostics"]))),
                )
    raise InvalidInput(f"{folder} has no slices for a problem {problem!r}")


def _arrays(slices: Mapping[str, Slices], half: str = "") -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for name, found in slices.items():
        arrays[f"{name}/{half}example_ids"] = np.array(found.example_ids)
        arrays[f"{name}/{half}membership"] = found.membership.cpu().numpy()
        arrays[f"{name}/{half}members"] = found.members.cpu().numpy()
        arrays[f"{name}/{half}diagnostics"] = np.array(json.dumps(list(found.diagnostics)))
    return arrays
