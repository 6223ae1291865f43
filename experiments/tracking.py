"""Mirror a run to Weights & Biases, or to nobody. The run folder is the truth, and a tracker never fails a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol

from experiments.console import say
from experiments.finished import FinishedRun
from experiments.record import Record
from experiments.settings import Settings

Mode = Literal["online", "offline"]


class Tracker(Protocol):
    """What the pipeline says to a tracker."""

    def log(self, run: FinishedRun, summary: Mapping[str, float]) -> None: ...

    def close(self, failed: bool) -> None: ...


class Tracking(Protocol):
    """Where trackers come from: the settings in `conf/tracking`."""

    def start(self, settings: Settings, record: Record) -> Tracker: ...


@contextmanager
def start_tracking(settings: Settings, record: Record) -> Iterator[Tracker]:
    """A tracker for this run; whatever goes wrong with it is said once, and the run goes on."""
    before = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
    tracker = Forgiving(lambda: settings.tracking.instance.start(settings, record))
    failed = True
    try:
        yield tracker
        failed = False
    finally:
        tracker.close(failed)
        _restore(before)  # the next run of this process has folders of its own, and the user's credentials


def _restore(before: Mapping[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_") and name not in before]:
        del os.environ[name]
    os.environ.update(before)


class Forgiving:
    """A tracker that gives up on the first failure of the one it wraps, and never raises."""

    def __init__(self, start: Callable[[], Tracker]) -> None:
        self._tracker: Tracker = Silence()
        self._try(lambda: setattr(self, "_tracker", start()))

    def log(self, run: FinishedRun, summary: Mapping[str, float]) -> None:
        self._try(lambda: self._tracker.log(run, summary))

    def close(self, failed: bool) -> None:
        self._try(lambda: self._tracker.close(failed))

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # a service that is down must not cost a run
            say(f"tracking stopped ({_line(error)})")
            self._tracker = Silence()


class Silence:
    """A tracker that tells nobody."""

    def log(self, run: FinishedRun, summary: Mapping[str, float]) -> None: ...

    def close(self, failed: bool) -> None: ...


@dataclass(frozen=True)
class NoTracking:
    """Tell nobody."""

    def start(self, settings: Settings, record: Record) -> Tracker:
        return Silence()


@dataclass(frozen=True)
class Wandb:
    """Weights & Biases; all its files lie below the run folder.

    Parameters
    ----------
    mode : {"auto", "online", "offline"}
        auto: online where the user is logged in or has set a key, and the server answers, else offline.
    project : str
    entity : str, optional
        The user's or team's default where it is left out.
    media : bool
        Whether pictures and texts of examples are sent: not all of them may be passed on, and what an offline run
        holds is uploaded later.
    """

    mode: Literal["auto", "online", "offline"] = "auto"
    project: str = "slicebench"
    entity: str | None = None
    media: bool = False

    def start(self, settings: Settings, record: Record) -> Tracker:
        from experiments.wandb_run import WandbRun  # with wandb, 0.4 s: only where it is used

        os.environ["WANDB_ERROR_REPORTING"] = "false"
        os.environ["WANDB_SILENT"] = "true"
        mode = self._mode()  # before the folders move: credentials lie in the user's own
        for name in ("DATA", "CACHE", "CONFIG", "ARTIFACT"):
            folder = record.folder / "wandb" / name.lower()
            folder.mkdir(parents=True, exist_ok=True)
            os.environ[f"WANDB_{name}_DIR"] = str(folder)
        try:
            return WandbRun(self, mode, settings, record)
        except Exception as error:
            if self.mode != "auto" or mode == "offline":
                raise
            _say_offline(error)
            return WandbRun(self, "offline", settings, record)

    def _mode(self) -> Mode:
        if self.mode == "auto":
            return "online" if _is_logged_in() else "offline"
        return self.mode


@cache  # a server that does not answer costs 10 s: once a process, not once a run
def _is_logged_in() -> bool:
    import wandb

    try:
        return bool(wandb.login(prompt=False))
    except Exception as error:  # no network, or a key that is no longer valid
        _say_offline(error)
        return False


def _say_offline(error: Exception) -> None:
    say(f"Weights & Biases cannot be reached, so runs are tracked offline ({_line(error)})")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
