"""One run, from examples to scores: read from top to bottom."""

from __future__ import annotations

from omegaconf import DictConfig

from experiments.compute import threads
from experiments.contract import Dataset
from experiments.corruption import make_problems
from experiments.discovery import discover, score
from experiments.embedding import embed
from experiments.examples import examples_table
from experiments.inference import infer
from experiments.loading import load_dataset
from experiments.opponents import find_opponents, prepare_opponents
from experiments.record import Record
from experiments.settings import Settings, check_settings
from experiments.tracking import start_tracking
from experiments.training import train_or_load


def run(config: DictConfig) -> None:
    """Everything that a run does, in order; each stage is cached, and a finished run is skipped."""
    settings = check_settings(config)  # names, types, ranges: before anything is computed
    dataset = load_dataset(settings)  # lazy: names, labels, attributes, fingerprint
    with Record.open(settings, dataset) as record:  # the run folder, named by content; ours alone from here on
        if not record.finished:
            _discover(settings, dataset, record)


def _discover(settings: Settings, dataset: Dataset, record: Record) -> None:
    with start_tracking(settings, record) as tracking, threads(settings.compute):
        record.note_dataset(dataset)
        model = train_or_load(settings, dataset)
        predictions = infer(settings, dataset, model)  # per split: logits, losses, correct, hidden layers
        embedded = embed(settings, dataset, model, predictions)  # per split, for any labels
        record.note_embedding(embedded)
        search = prepare_opponents(settings, dataset, model, predictions)  # None unless opponents are asked for
        problems = make_problems(settings, predictions, embedded)
        for part in record.unfinished_parts(problems):
            found = discover(settings, part.problems)  # fitted on problem.fit, predicted on problem.score
            opponents = find_opponents(search, part.problems, found)
            record.write(part, found, score(settings, part.problems, found), opponents)
        record.write_examples(examples_table(dataset, predictions, embedded))
        record.finish()
        tracking.log(record.summary())
