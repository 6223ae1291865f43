"""One run, from examples to scores: read from top to bottom."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from experiments.audit import Audit
from experiments.compute import threads
from experiments.contract import Dataset, ProblemSet
from experiments.corruption import make_problems
from experiments.discovery import discover, score
from experiments.embedding import embed
from experiments.examples import examples_of_problems, examples_table, relabelled_examples, true_slices
from experiments.explanations import explain, find_opponents, measure_coherence
from experiments.finished import FinishedRun
from experiments.inference import infer, infer_share
from experiments.loading import load_dataset
from experiments.record import Record
from experiments.settings import Settings, check_settings
from experiments.stored import stored_problems
from experiments.tracking import start_tracking
from experiments.training import train_or_load


def run(config: DictConfig) -> Path:
    """Everything that a run does, in order; each stage is cached, and a finished run is skipped. Returns its folder."""
    settings = check_settings(config)  # names, types, ranges: before anything is computed
    return run_on(settings, load_dataset(settings))  # lazy: names, labels, attributes, fingerprint


def run_on(settings: Settings, data: Dataset | ProblemSet) -> Path:
    """The same on data that are loaded."""
    with Record.open(settings, data) as record:  # the run folder, named by content; ours alone from here on
        if not record.finished:
            _discover(settings, data, record)
        return record.folder


def _discover(settings: Settings, data: Dataset | ProblemSet, record: Record) -> None:
    with start_tracking(settings, record) as tracking, threads(settings.compute):
        record.note_data(data)
        if isinstance(data, ProblemSet):
            problems = stored_problems(settings, data, audit)  # each with a model of its own, which ran elsewhere
        else:
            audited = audit(settings, data)
            record.note_audit(audited)
            record.write_examples(examples_table(audited))
            problems = make_problems(settings, audited)  # all from the outputs of one model
        for part in record.unfinished_parts(problems):
            found, fitted = discover(settings, part.problems)  # fitted on problem.fit, predicted on problem.score
            scores = score(settings, part.problems, found)
            tables = {  # the first two are empty unless they are asked for
                "opponents": find_opponents(settings, part.problems, found),
                "coherence": measure_coherence(settings, part.problems, found),
                "examples": examples_of_problems(data, part.problems),
                "truth": true_slices(part.problems),
                "relabelled": relabelled_examples(part.problems, settings.evaluation),
            }
            record.write(part, found, fitted, scores, **tables)
        record.finish()
        tracking.log(FinishedRun(record.folder, record.content), record.summary())


def infer_shard(config: DictConfig, number: int) -> None:
    """One shard of what runs with these settings infer, before they begin; one of all trains the model first."""
    settings = check_settings(config)
    dataset = load_dataset(settings)
    if isinstance(dataset, Dataset):
        with threads(settings.compute):
            infer_share(settings, dataset, train_or_load(settings, dataset), number % settings.inference.shards)


def audit(settings: Settings, dataset: Dataset) -> Audit:
    """One model under audit, and what it gives on the splits that the run needs."""
    model = train_or_load(settings, dataset)
    predictions = infer(settings, dataset, model)  # per split: logits, losses, correct, hidden layers
    embedded = embed(settings, dataset, model, predictions)  # per split, for any labels
    explanations = explain(settings, dataset, model, predictions)  # none unless slices are to be explained
    return Audit(dataset, predictions, embedded, explanations)
