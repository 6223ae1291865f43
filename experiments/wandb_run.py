"""What Weights & Biases is told of a run: numbers, and pictures and texts of examples only where they may be sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import wandb
from hydra.core.hydra_config import HydraConfig
from PIL import ImageOps

from experiments.console import say
from experiments.describing.data import pictures
from experiments.describing.names import in_a_line, shortened
from experiments.describing.problems import STATISTICS, FoundIn, FoundProblem
from experiments.finished import FinishedRun
from experiments.manifest import FOLDER, NAME
from experiments.reading.images import in_mode
from experiments.record import Record
from experiments.settings import Settings
from methods.errors import InvalidInput

if TYPE_CHECKING:
    from experiments.tracking import Mode, Wandb

PROBLEMS = 50  # whose slices are in the table: a page in a browser is no place for the thousands of 600 problems
CLASSES = 20  # of each slice, the commonest: ImageNet has 1,000
SLICES, EXAMPLES = 5, 8  # of which pictures and texts are sent: the worst slices, their strongest members
SIDE = 128  # pixels of a picture
LETTERS = 300  # of a text
LONGEST = 128  # letters of the name of a group, at most
MATCHING = "best_average_precision"  # the protocol by which a slice is matched to a true one, where it is among them
MATCHED = ("precision_at_k", "average_precision", "f1")
STAMP = ("git", "device", "threads", "python")
# seconds: without them a server that is down holds a run up for ever
TO_START, TO_FINISH = 30.0, 120.0


class WandbRun:
    """One run at Weights & Biases: settings at the beginning, results at the end, and whether it failed."""

    def __init__(self, tracking: Wandb, mode: Mode, settings: Settings, record: Record) -> None:
        self._media = tracking.media
        self._run = wandb.init(
            mode=mode,
            project=tracking.project,
            entity=tracking.entity,
            dir=record.folder,
            id=record.name,
            name=record.name,
            group=group_of(settings, record)[:LONGEST],
            job_type=settings.method.name[:LONGEST],
            config=_config(settings, record),
            resume="allow",
            settings=wandb.Settings(
                console="off",
                disable_git=True,
                x_disable_stats=True,
                x_disable_meta=True,  # the command line and the working directory: paths are nobody's business
                x_save_requirements=False,
                init_timeout=TO_START,
                finish_timeout=TO_FINISH,
                finish_timeout_raises=True,
            ),
        )

    def log(self, run: FinishedRun, summary: Mapping[str, float]) -> None:
        """Scores, tables and, where they may be sent, pictures in one step; the slices as an artifact."""
        slices = slices_table(run)
        told: dict[str, Any] = {**summary, **_of_the_run(run)}
        if len(slices):
            first = str(slices["problem"].iloc[0])
            found = FoundProblem(run, first).scored
            if len(shares := distributions(found)):
                told["distributions"] = _table(shares.assign(problem=first))
            if self._media:
                slices = _with_texts(slices, found)
                told |= _pictures(run, found)
            told["slices"] = _table(slices)
        self._run.log(told)
        self._run.log_artifact(_artifact(run))

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


def group_of(settings: Settings, record: Record) -> str:
    """What finds runs that were started together: the prepared experiment, else the sweep, else data and corruption."""
    experiment = HydraConfig.get().runtime.choices.get("experiment")
    if experiment not in (None, "null"):
        return " ".join(filter(None, (experiment, settings.scale.name)))
    sweep = _newest_sweep(settings, record)
    return f"sweep {sweep}" if sweep else f"{settings.dataset.name} {settings.corruption.name}".removesuffix(" none")


def _newest_sweep(settings: Settings, record: Record) -> str | None:
    """The key of the sweep that wants this run, as its manifest says to every process; None where there is none."""
    manifests = [path for path in (settings.paths.results / FOLDER).glob("*.json") if NAME.fullmatch(path.name)]
    run = f'"{record.folder.parent.name}/{record.name}"'
    newest_first = sorted(manifests, key=lambda path: path.stat().st_mtime, reverse=True)
    return next((path.stem for path in newest_first if run in path.read_text()), None)


def _config(settings: Settings, record: Record) -> dict[str, Any]:
    """What defines the run, its names as tables have them, and the stamp."""
    groups = ("dataset", "model", "embedding", "method", "corruption")
    names = {group: getattr(settings, group).name for group in groups} | {"variant": settings.variant}
    return {**record.definition, "names": names, **{name: record.content.get(name) for name in STAMP}}


def _of_the_run(run: FinishedRun) -> dict[str, float]:
    """Seconds of each stage, number of problems, and how well the model does on the split that was scored."""
    of_split = [("split", "==", run.identity["split"])]
    split = pd.read_parquet(run.folder / "examples.parquet", columns=["correct", "loss"], filters=of_split)
    return {
        **{f"seconds/{stage}": seconds for stage, seconds in run.content["seconds"].items()},
        "n_problems": len(run.problems),
        "n_refused": len(run.content["refused"]),
        "split/accuracy": float(split["correct"].mean()),
        "split/mean_loss": float(split["loss"].mean()),
    }


def slices_table(run: FinishedRun) -> pd.DataFrame:
    """A row for each slice of the first problems: its numbers and, where there is a truth, its matched scores.

    The gap is the accuracy of the other examples minus that of the slice. A slice that is matched to several true
    slices has the scores of the one that it finds best.
    """
    scores = run.scores[run.scores["problem"].isin(run.problems[:PROBLEMS]) & (run.scores["slice"] >= 0)]
    if scores.empty:
        return pd.DataFrame(columns=["problem", "slice", *STATISTICS])
    own = scores[scores["protocol"].isna()]
    numbers = own.pivot_table(index=["problem", "slice"], columns="metric", values="value", sort=False)
    numbers = numbers.reindex(columns=list(STATISTICS)).astype({"size": int})
    table = numbers.join(_matched(scores, run.definition["evaluation"]["protocols"])).reset_index()
    return table.assign(slice=table["slice"].astype(int) + 1)


def _matched(scores: pd.DataFrame, protocols: Sequence[str]) -> pd.DataFrame:
    """The scores of matched slices by one protocol, by problem and slice; no columns where there is no truth."""
    protocol = MATCHING if MATCHING in protocols else protocols[0]
    own = scores[(scores["protocol"] == protocol) & scores["metric"].isin(MATCHED)]
    if own.empty:
        return pd.DataFrame(index=pd.MultiIndex.from_arrays([[], []], names=["problem", "slice"]))
    name = protocol + "/" + own["metric"] + ("/" + own["k"].astype(str)).where(own["k"].notna(), "")
    index = ["problem", "slice", "true_slice"]
    table = own.assign(name=name).pivot_table(index=index, columns="name", values="value").reset_index("true_slice")
    best_first = table.sort_values(f"{protocol}/average_precision", ascending=False, kind="stable")
    return best_first[~best_first.index.duplicated()]


def distributions(found: FoundIn) -> pd.DataFrame:
    """The share of each class among labels and predictions of a slice, and in the whole split beside it.

    Returns
    -------
    DataFrame
        With slice, of (label or prediction), class, share and share_of_split; no rows where there are no labels.
    """
    rows = list(_shares(found))
    return pd.DataFrame(rows, columns=["slice", "of", "class", "share", "share_of_split"])


def _shares(found: FoundIn) -> Iterator[tuple[int, str, str, float, float]]:
    for column in ("label", "prediction"):
        everywhere = found.examples[column].value_counts(normalize=True)
        for index, members in enumerate(found.members.T, start=1):
            shares = found.examples.loc[members, column].value_counts(normalize=True)
            for name, share in shares.head(CLASSES).items():
                yield index, column, str(name), float(share), float(everywhere[name])


def _with_texts(slices: pd.DataFrame, found: FoundIn) -> pd.DataFrame:
    """The table with texts of the strongest members, where examples have some and their problem is shown."""
    if found.examples["text"].isna().all():
        return slices
    worst = range(1, min(SLICES, found.slices.n_slices) + 1)
    texts = {index: found.ranked(index)["text"].head(EXAMPLES) for index in worst}
    joined = {i: "\n".join(shortened(in_a_line(text), LETTERS) for text in of_slice) for i, of_slice in texts.items()}
    is_shown = slices["problem"] == slices["problem"].iloc[0]
    return slices.assign(texts=slices["slice"].map(joined).where(is_shown, None))


def _pictures(run: FinishedRun, found: FoundIn) -> dict[str, list[wandb.Image]]:
    """The strongest members of the worst slices, and random examples to hold them against."""
    worst = range(1, min(SLICES, found.slices.n_slices) + 1)
    shown = {f"slice_{index}": found.ranked(index).head(EXAMPLES) for index in worst}
    shown["random"] = found.examples.sample(min(EXAMPLES, len(found.examples)), random_state=0)
    try:
        files = pictures(run, found.split, pd.concat(shown.values())["id"])
    except InvalidInput as error:
        if found.examples["text"].isna().all():  # else they are shown instead
            say(f"Weights & Biases gets no pictures: {error}")
        return {}
    return {
        f"pictures/{name}": [_image(files[row.id], row) for row in rows.itertuples()] for name, rows in shown.items()
    }


def _image(picture: Any, row: Any) -> wandb.Image:
    """On a square, since pictures beside each other must be of one size."""
    caption = f"{in_a_line(row.label)} → {in_a_line(row.prediction)}, loss {row.loss:.2f}"
    return wandb.Image(ImageOps.pad(in_mode(picture, "RGB"), (SIDE, SIDE), color="white"), caption=caption)


def _table(frame: pd.DataFrame) -> wandb.Table:
    rows = frame.astype(object).where(frame.notna(), None)  # json has no nan
    return wandb.Table(columns=list(frame), data=rows.to_numpy().tolist())


def _artifact(run: FinishedRun) -> wandb.Artifact:
    """The slices and their scores: ids and numbers, sent from where they lie."""
    artifact = wandb.Artifact(f"slices-{run.folder.name}", type="slices")
    for path in (run.folder / "scores.parquet", *sorted((run.folder / "parts").glob("*.npz"))):
        name = path.relative_to(run.folder).as_posix()
        artifact.add_file(str(path), name=name, policy="immutable", skip_cache=True)  # no copies: a done run stays
    return artifact
