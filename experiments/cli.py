"""The command line: `slicebench VERB`. Heavy imports wait until a verb needs them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from methods.errors import InvalidInput

if TYPE_CHECKING:
    from experiments.jobs import Failure
    from experiments.prepared import Order

USER_ERROR, FAILURE, INTERRUPTED = 2, 1, 130

app = typer.Typer(
    help="Benchmark slice discovery methods, and rerun the experiments of two papers.\n\n"
    "Exit codes: 0 all is well, 2 the input cannot be used, 1 anything else is not well, 130 interrupted. "
    "Results are on standard output (--json: for programs), all else on standard error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print json.")]
# an empty variable is no path: it would be read as the working directory
PATHS = ("SLICEBENCH_CACHE", "SLICEBENCH_DATA")
Folder = Annotated[Path, typer.Argument(help="A folder of runs, such as outputs or outputs/demo.")]


def main() -> None:
    """Entry point of the console script."""
    app()


@contextmanager
def explained(debug: bool = False) -> Iterator[None]:
    """One line instead of a traceback where the user can do something about it."""
    try:
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # one is enough: no traceback from what cleans up
        typer.echo("interrupted; the same command goes on from here", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except typer.Exit:
        raise
    except Exception as error:
        from experiments.errors import explanation

        reason = explanation(error)
        if debug or reason is None:
            raise
        typer.echo(f"slicebench: {reason}", err=True)
        raise typer.Exit(USER_ERROR) from None


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"slicebench {version('slicebench')}")
        raise typer.Exit


@app.callback()
def _before(
    _: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    # Threads that spin while they wait take the cores from each other, and from everybody else: beside other work on
    # two cores, domino took 0.2 s for ten problems of digits instead of 2.7, k-means 0.05 instead of 1.4, ridge 2
    # instead of 7. Undisturbed, matrix products take the same, and what is split up for less than a millisecond up to
    # twice as long. Before torch is there, since it asks once; other processes of ours inherit it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in PATHS:
        if not os.environ.get(name):
            os.environ.pop(name, None)
    try:
        os.getcwd()
    except FileNotFoundError:  # torch has words for it that nobody understands
        typer.echo("slicebench: the working directory is gone: change to another one", err=True)
        raise typer.Exit(USER_ERROR) from None


@app.command(name="list")
def list_(
    kind: Annotated[
        str | None, typer.Argument(help="datasets, models, embeddings, methods ...; all of these by default; problems.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """What there is to choose from, one line each; problems are those on this machine, dcbench's and of suites."""
    with explained(debug):
        from experiments.listing import PROBLEMS, show_lists

        if kind == PROBLEMS:
            from experiments.suites.problem_list import show_problems

            show_problems(as_json)
        else:
            show_lists(kind, as_json)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show stages and what is cached; compute nothing.")
    ] = False,
    import_path: Annotated[
        list[Path] | None, typer.Option(help="A folder with a module of yours, for method._target_=my_module.MyMethod.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """One run, or a sweep: overrides such as method=gmm dataset.slice_size=30 seeds.method=1, in Hydra's syntax.

    --multirun method=gmm,spotlight seeds.method=0,1,2 runs all combinations; experiment=demo runs a prepared one;
    --config-dir DIR adds configs of your own; --cfg job prints the composed config. A finished run is skipped, an
    unfinished one goes on where it stopped. Standard output stays empty, but for --dry-run, --cfg, the reports of
    prepared experiments, and --json: folder, status (done, failed, refused), overrides and error of each run.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us, instead of being printed by Hydra
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # else a folder `conf` here would hide ours from worker processes
    arguments = _overrides_last(context.args)
    with explained(debug):
        _check_folders(import_path or [])
        if dry_run and as_json:
            raise InvalidInput("--dry-run is for people to look at, --json for programs: take one of them")
        from experiments.jobs import IMPORT_PATH, Failure
        from experiments.launching import check_arguments, launch
        from experiments.outcomes import show_outcomes
        from experiments.own_code import STARTED_IN
        from experiments.prepared import orders

        check_arguments(arguments)
        os.environ[STARTED_IN] = os.getcwd()
        os.environ[IMPORT_PATH] = os.pathsep.join(str(folder.resolve()) for folder in import_path or [])
        if prepared := orders(arguments):
            _rerun(prepared, dry_run, as_json, debug)
            return
        results = launch(arguments, dry_run)
        if as_json and results:  # --cfg and the like have none
            show_outcomes(results)
        failures = [result for result in results if isinstance(result, Failure)]
        if failures and len(results) == 1 and failures[0].error is not None:
            raise failures[0].error
        _name(failures, len(results), debug)


def _rerun(prepared: Sequence[Order], dry_run: bool, as_json: bool, debug: bool) -> None:
    from experiments.outcomes import show_experiments
    from experiments.rerun import rerun

    with redirect_stdout(sys.stderr) if as_json else nullcontext():  # which says where the reports are
        failures, n_runs = rerun(prepared, dry_run)
    if as_json:
        show_experiments(prepared, failures)
    _name(failures, n_runs, debug)


def _name(failures: Sequence[Failure], n_jobs: int, debug: bool) -> None:
    """One line for each reason why runs of a sweep failed, below the tracebacks that there are to show."""
    for failure in failures:
        if failure.trace and (failure.ours or debug):
            typer.echo(failure.trace, err=True)
    reasons: dict[str, list[str]] = {}
    for failure in failures:
        reasons.setdefault(failure.reason, []).append(failure.overrides)
    for reason, who in reasons.items():
        others = f" (and {len(who) - 1} others)" if len(who) > 1 else ""
        typer.echo(f"slicebench: {who[0]}{others}: {reason}", err=True)
    if failures:
        typer.echo(f"slicebench: {len(failures)} of {n_jobs} runs failed", err=True)
        raise typer.Exit(FAILURE if any(failure.ours for failure in failures) else USER_ERROR)


def _overrides_last(arguments: list[str]) -> list[str]:
    """Hydra's parser takes no override after an option that follows another override."""
    overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    return [argument for argument in arguments if argument not in overrides] + overrides


def _check_folders(import_path: Sequence[Path]) -> None:
    missing = next((folder for folder in import_path if not folder.is_dir()), None)
    if missing is not None:
        raise InvalidInput(f"--import-path {missing} is no folder")


@app.command()
def status(
    folder: Folder = Path("outputs"),
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again and again, until no run is left to wait for.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """How far each run is: done, running, failed, killed or, of a sweep, missing; and what finishes the sweep.

    Exit code 0 only where all are done or running.
    """
    with explained(debug):
        from experiments.status import show_status, watch_status

        if watch and as_json:
            raise InvalidInput("--watch is for people to look at, --json for programs: take one of them")
        ok = watch_status(folder) if watch else show_status(folder, as_json)
    raise typer.Exit(0 if ok else FAILURE)


@app.command()
def collect(
    folder: Folder = Path("outputs"),
    confidence: Annotated[float | None, typer.Option(help="Of the intervals; as the runs have it by default.")] = None,
    resamples: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="Of the bootstrap; as the runs have it by default.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Of papers' experiments: published beside measured, instead of scores.")
    ] = False,
    analyse: Annotated[
        bool, typer.Option("--analyse", help="Of papers' experiments: make their numbers and pictures again.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """All scores below a folder in one file, and a leaderboard with intervals.

    Of folders that slicebench run experiment=... wrote to: --compare, --analyse.
    """
    with explained(debug):
        if analyse or compare:
            from experiments.compare import analyse_all, show_comparison

            if analyse:
                analyse_all(folder)
            if compare:
                show_comparison(folder, as_json)
            return
        from experiments.collect import collect as collect_runs

        collect_runs(folder, confidence, resamples, as_json)


@app.command()
def report(
    folder: Folder = Path("outputs"),
    output: Annotated[
        Path | None, typer.Option(help="Where to put it; FOLDER/report, or FOLDER/report.html with --inline.")
    ] = None,
    inline: Annotated[bool, typer.Option("--inline", help="One file, with all pictures in it.")] = False,
    problems: Annotated[
        int | None, typer.Option(min=1, help="Of a run, that are shown in detail; 3, or 1 of many runs, by default.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """A report to look at: the leaderboard, and each slice with its examples, as HTML that needs no network.

    Of one run, of a sweep, of a paper's experiment, or of what slicebench find wrote. Its pictures are those of the
    examples: think before you pass it on.
    """
    with explained(debug):
        import json

        from experiments.report.report import write_report

        path = write_report(folder, output, inline, problems)
        typer.echo(json.dumps({"report": str(path)}) if as_json else f"report: {path}")


@app.command()
def find(
    file: Annotated[Path, typer.Argument(help="A model's outputs: .npz, .parquet or .csv.", show_default=False)],
    settings: Annotated[list[str] | None, typer.Argument(help="KEY=VALUE, of the method: size=30 n_slices=8.")] = None,
    method: Annotated[
        str, typer.Option(help="As in slicebench list methods, or your own: FILE.py:MyMethod, my_package.MyMethod.")
    ] = "spotlight",
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where results go; the file's name with -slices by default.")
    ] = None,
    held_out: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Of the examples, in which slices are checked and not sought; 0.5, or 0."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="In the order of logits or probabilities.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the division into halves, and of what the method draws.")] = 0,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Whether to make an HTML report.")] = True,
    import_path: Annotated[list[Path] | None, typer.Option(help="A folder with a module of yours.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Slices in predictions that you already have: no data set and no model are needed.

    The file has a row an example, and in it: embedding_0, embedding_1 ... (or embedding, a list), what the model saw in
    the example; label, counted from 0, or a name; logit_0, logit_1 ... or probability_0 ... or loss, in nats. It may
    have id, image (a path), text, correct, split (train, validation, test); all other columns are attributes.
    """
    with explained(debug):
        _check_folders(import_path or [])
        from experiments.find import Order, show_slices

        order = Order(file.expanduser(), settings or [], method, output, held_out, classes, seed)
        show_slices(order, as_json, report, import_path or [])


@app.command()
def check(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="dataset=NAME, to look at one only; its settings as dataset.KEY=VALUE.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """What is on this machine: data (and how to get what is missing), weights, GPU, SLURM, versions.

    Exit code 0, unless a data set that was asked for by name is not there.
    """
    with explained(debug):
        from experiments.check import show_check

        ok = show_check(overrides or [], as_json)
    raise typer.Exit(0 if ok else FAILURE)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Of a data set, as in slicebench list datasets.")],
    settings: Annotated[list[str] | None, typer.Argument(help="Of the data set: layout=NAME, KEY=VALUE.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Download a public data set into SLICEBENCH_DATA (or data), or say what to get and where to put it.

    A download that was broken off goes on with the same command. Exit code 0 only where the data set is there then.
    """
    with explained(debug):
        from experiments.fetch import show_fetch

        ok = show_fetch(name, settings or [], as_json)
    raise typer.Exit(0 if ok else FAILURE)


@app.command()
def make(
    suites: Annotated[
        list[str],
        typer.Argument(help="Names as in slicebench list suites, or yaml files; overrides of dataset, model, compute."),
    ],
    jobs: Annotated[int, typer.Option(help="Processes that work at once, and share the cores.")] = 1,
    folder: Annotated[Path | None, typer.Option(help="Where to put them; SLICEBENCH_DATA/suites by default.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make suites of slice problems: train a model on each manipulated data set, and keep those that fail as intended.

    What is there already is kept, and what was broken off goes on with the same command; several of them, on one
    machine or on many, share the work. Afterwards: slicebench run dataset=suite dataset.name=NAME
    """
    with explained(debug):
        from experiments.suites.suite import make_suites

        overrides = [argument for argument in suites if "=" in argument]
        make_suites([argument for argument in suites if "=" not in argument], overrides, jobs, folder, as_json)


@app.command()
def cache(
    prune: Annotated[float | None, typer.Option(metavar="DAYS", help="Remove what was written so long ago.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Size of the cached stages."""
    with explained(debug):
        from experiments.cache_report import show_cache

        show_cache(prune, as_json)


@app.command()
def validate(
    target: Annotated[str, typer.Argument(help="Your class: FILE.py:MyMethod, or my_package.MyMethod.")],
    settings: Annotated[list[str] | None, typer.Argument(help="KEY=VALUE, to check it with.")] = None,
    import_path: Annotated[list[Path] | None, typer.Option(help="A folder with a module of yours.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check a method of your own against the contract, on small data with a planted slice.

    Exit code 0 where all checks are passed, 1 where some fail, 2 where the class cannot be loaded or made.
    """
    with explained(debug):
        _check_folders(import_path or [])
        from experiments.validate import show_validation

        ok = show_validation(target, settings or [], import_path or [], as_json, debug)
    raise typer.Exit(0 if ok else FAILURE)


if __name__ == "__main__":
    main()
