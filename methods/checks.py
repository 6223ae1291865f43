"""What the benchmark, and people, rely on in a method: small checks on planted data, also for tests of your own.

@pytest.mark.parametrize("check", CHECKS)
def test_my_method(check):
    CHECKS[check](Trial(MyMethod, size=30))
"""

from __future__ import annotations

import copy
import inspect
import io
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, is_dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from methods.contract import InvalidInput, ModelOutputs, Slices, Unsupported
from methods.randomness import seeded, with_seed
from methods.ranges import check_ranges

SIZE = 50  # of the planted slice, among eight times as many examples
FEW = 5
CLOSE = 1e-4  # between two ways to the same membership
T = TypeVar("T")


class Failed(AssertionError):
    """What a method did, and what it should have done.

    Parameters
    ----------
    seen, expected : str
    remedy : str
        What to change in the method.
    """

    def __init__(self, seen: str, expected: str, remedy: str) -> None:
        super().__init__(f"{seen}; expected {expected}: {remedy}")
        self.seen, self.expected, self.remedy = seen, expected, remedy


@dataclass(frozen=True, eq=False)
class Finding:
    """How one check ended.

    Parameters
    ----------
    check : str
        A key of `CHECKS`.
    state : {"ok", "failed", "not reached"}
        Where fit or predict do not work at all, the rest is not reached.
    seen, expected, remedy : str
        Of a failure.
    error : BaseException, optional
        What the method raised.
    """

    check: str
    state: Literal["ok", "failed", "not reached"]
    seen: str = ""
    expected: str = ""
    remedy: str = ""
    error: BaseException | None = None


def planted(
    kind: Literal["blob", "cell"] = "blob", seed: int = 0, size: int = SIZE, before: str = ""
) -> tuple[ModelOutputs, Tensor]:
    """Outputs with a slice that is easy to find, and which examples are in it.

    Parameters
    ----------
    kind : {"blob", "cell"}
        The model fails in one of eight far blobs of embeddings, or on examples of one class wherever they are.
    seed : int
    size : int, >= 1
        Of the slice; there are eight times as many examples, in four classes.
    before : str
        What ids begin with.

    Returns
    -------
    ModelOutputs
    Tensor, shape (n,), bool
    """
    n, generator = 8 * size, torch.Generator().manual_seed(seed)
    blobs = torch.arange(n) % 8
    centers = 6 * torch.randn(8, 5, generator=generator)
    embeddings = centers[blobs] + 0.5 * torch.randn(n, 5, generator=generator)  # (n, 5)
    labels = blobs % 4
    in_slice = blobs == 3
    if kind == "cell":
        in_slice = torch.zeros(n, dtype=torch.bool)
        in_slice[torch.nonzero(labels == 1).flatten()[:size]] = True
    predictions = torch.where(in_slice, (labels + 1) % 4, labels)
    logits = 4.0 * torch.nn.functional.one_hot(predictions, 4) + 0.1 * torch.randn(n, 4, generator=generator)
    ids = [f"{before}{i:03d}" for i in range(n)]
    return ModelOutputs.from_arrays(ids, embeddings=embeddings, labels=labels, logits=logits), in_slice


class Trial:
    """A method under check, and what it gave so far: several checks look at one fit.

    Parameters
    ----------
    make : callable
        The method's class, or whatever else makes an unfitted one from settings by name.
    settings : optional
        Those to check it with. A `seed` is filled in where the class takes one.
    """

    def __init__(self, make: Callable[..., Any], /, **settings: Any) -> None:
        seed = {"seed": 0} if "seed" in inspect.signature(make).parameters else {}
        self.make, self.settings = make, {**seed, **settings}
        self.printed = io.StringIO()
        self.seconds = 0.0  # of fit and predict on the planted slice

    @cached_property
    def method(self) -> Any:
        """Unfitted: what is fitted are copies, as in the benchmark."""
        return self.make(**self.settings)

    @cached_property
    def fit(self) -> Any:
        """Fitted where a blob is planted."""
        start = time.perf_counter()
        fitted = self.fitted(with_seed(self.method, 0), planted()[0])
        self.seconds += time.perf_counter() - start
        return fitted

    @cached_property
    def slices(self) -> Slices:
        """What it finds there."""
        fitted, start = self.fit, time.perf_counter()
        found = self.predicted(fitted, planted()[0])
        self.seconds += time.perf_counter() - start
        return found

    def found(self, outputs: ModelOutputs, seed: int = 0) -> Slices:
        """The slices of a new fit, among the same examples.

        Raises
        ------
        Failed
            Where the method raises anything but a refusal, or returns anything else.
        InvalidInput
            Where it refuses.
        """
        return self.predicted(self.fitted(with_seed(self.method, seed), outputs), outputs)

    def fitted(self, method: Any, outputs: ModelOutputs) -> Any:
        fitted = self.call(lambda: method.fit(outputs))
        if not hasattr(fitted, "predict"):
            raise Failed(f"fit returned {_kind(fitted)}", "the fitted method", "end fit with `return self`")
        return fitted

    def predicted(self, fitted: Any, outputs: ModelOutputs) -> Slices:
        found = self.call(lambda: fitted.predict(outputs))
        if not isinstance(found, Slices):
            remedy = "end predict with `return Slices(outputs.example_ids, membership, members)`"
            raise Failed(f"predict returned {_kind(found)}", "methods.Slices", remedy)
        if found.example_ids != outputs.example_ids:
            seen = f"predict returned {len(found.example_ids)} ids, from {found.example_ids[0]!r}"
            expected = f"the {outputs.n_examples} ids that it was given, from {outputs.example_ids[0]!r}"
            raise Failed(seen, expected, "take the ids of the outputs given to predict, and not of those given to fit")
        return found

    def call(self, act: Callable[[], T]) -> T:
        """What the method's own code gives; what it prints is kept."""
        try:
            with seeded(0), redirect_stdout(self.printed):
                return act()
        except InvalidInput as error:
            if _is_refusal(error):
                raise
            remedy = "correct what predict gives to Slices (NaN often comes from a division by a range of 0)"
            raise Failed(
                f"{error} ({self.place_of(error)})", "slices as methods.Slices describes them", remedy
            ) from error
        except (Exception, SystemExit) as error:
            seen = f"{type(error).__name__}: {error}".splitlines()[0]
            remedy = "correct this line; what cannot work is refused with `raise methods.Unsupported(reason)`"
            raise Failed(f"{seen} ({self.place_of(error)})", "no error", remedy) from error

    def place_of(self, error: BaseException) -> str:
        """The last line of the method's own file that an error went through, else where it was raised."""
        frames = traceback.extract_tb(error.__traceback__)
        try:
            own = inspect.getsourcefile(type(self.method))
        except TypeError:  # of a class that was typed in
            own = None
        frame = next((frame for frame in reversed(frames) if frame.filename == own), frames[-1])
        return f"{Path(frame.filename).name}, line {frame.lineno}"


def findings(trial: Trial) -> Iterator[Finding]:
    """Each check of `CHECKS`, in their order."""
    works = True
    for name, check in CHECKS.items():
        if not works:
            yield Finding(name, "not reached")
            continue
        try:
            check(trial)
        except Failed as failure:
            yield Finding(name, "failed", failure.seen, failure.expected, failure.remedy, failure.__cause__)
            works = name not in FIRST
        except InvalidInput as error:  # of some examples, and not of others
            yield Finding(name, "failed", f"it refuses: {error}", "slices", "refuse what cannot work only", error)
        else:
            yield Finding(name, "ok")


def precision_at_10(trial: Trial, kind: Literal["blob", "cell"] = "blob") -> float:
    """The share of a planted slice among the ten examples of largest membership in the first slice found."""
    outputs, in_slice = planted(kind)
    slices = trial.slices if kind == "blob" else trial.found(outputs)
    if slices.n_slices == 0:
        return 0.0
    top = slices.membership[:, 0].argsort(descending=True, stable=True)[:10]
    return float(in_slice[top.cpu()].float().mean())


def _constructor_only_stores(trial: Trial) -> None:
    method = trial.method
    learned = [name for name in getattr(method, "__dict__", {}) if name.endswith("_") and not name.startswith("_")]
    if learned:
        seen = f"the constructor sets {', '.join(learned)}"
        raise Failed(seen, "what is learned in fit only", "set in fit what ends in an underscore")
    lost = [name for name in _parameters(method) if not hasattr(method, name)]
    if lost:
        seen = f"the setting {lost[0]!r} cannot be read back"
        raise Failed(seen, "an attribute of the same name", f"add `self.{lost[0]} = {lost[0]}` to the constructor")
    for name, value in trial.settings.items():
        if hasattr(method, name) and not _same(getattr(method, name), value):
            seen = f"{name}={value!r} became {getattr(method, name)!r}"
            raise Failed(seen, "settings that are stored as they are", "derive in fit what depends on settings")


def _fit_returns_the_method(trial: Trial) -> None:
    _unless_refused(planted()[0], lambda: trial.fit)


def _predict_returns_slices(trial: Trial) -> None:
    _unless_refused(planted()[0], lambda: trial.slices)


def _unless_refused(outputs: ModelOutputs, act: Callable[[], T]) -> T:
    """What a method does on ordinary outputs, which it has no reason to refuse."""
    try:
        return act()
    except InvalidInput as error:
        columns = outputs.embeddings.shape[1]
        seen = f"it refuses {outputs.n_examples} examples with {columns} columns and 4 classes: {error}"
        remedy = "check it with settings that fit so many examples, such as size=20"
        raise Failed(seen, "slices", remedy) from error


def _members_have_membership(trial: Trial) -> None:
    slices = trial.slices
    bad = slices.members & (slices.membership <= 0)
    if bad.any():
        row, index = bad.nonzero()[0].tolist()
        seen = f"{slices.example_ids[row]!r} is a member of slice {index + 1} with membership 0"
        raise Failed(seen, "a membership above 0", "give members a weight, or take them out of `members`")


def _no_more_than_n_slices(trial: Trial) -> None:
    most = getattr(trial.method, "n_slices", None)
    if isinstance(most, int) and trial.slices.n_slices > most:
        seen = f"{trial.slices.n_slices} slices came back for n_slices={most}"
        raise Failed(seen, "no more than were asked for", "return the first n_slices, the worst first")


def _no_gradients(trial: Trial) -> None:
    if trial.slices.membership.requires_grad:
        seen = "membership carries a gradient, so that it cannot become a numpy array"
        raise Failed(seen, "plain numbers", "give membership.detach() to Slices")


def _same_seed_same_slices(trial: Trial) -> None:
    remedy = (
        "draw in fit, from a generator made there: torch.Generator().manual_seed(self.seed), with a setting `seed: int`"
    )
    _check_equal(trial.found(planted()[0]), trial.slices, "two fits with one seed", 0, remedy)


def _fitting_again_forgets(trial: Trial) -> None:
    outputs, _ = planted()
    once = trial.fitted(with_seed(trial.method, 0), planted("cell", seed=1)[0])
    again = trial.predicted(trial.fitted(once, outputs), outputs)
    remedy = "let fit overwrite all that it learned before, and change no setting"
    _check_equal(again, trial.slices, "a method that was fitted to other examples before, and a new one,", 0, remedy)


def _other_examples(trial: Trial) -> None:
    others, _ = planted(seed=2, size=SIZE - 5, before="other-")
    _unless_refused(others, lambda: trial.predicted(trial.fit, others))


def _input_stays(trial: Trial) -> None:
    outputs, _ = planted()
    before = {name: value.clone() for name, value in vars(outputs).items() if isinstance(value, Tensor)}
    trial.found(outputs)
    changed = [name for name, value in before.items() if not torch.equal(value, getattr(outputs, name))]
    if changed:
        seen = f"{changed[0]} is changed in place"
        raise Failed(seen, "input that stays as it is", f"work on a copy: outputs.{changed[0]}.clone()")


def _nothing_printed(trial: Trial) -> None:
    _ = trial.slices
    printed = trial.printed.getvalue().strip()
    if printed:
        remedy = "print to sys.stderr, or use methods.progress: standard output is for results"
        raise Failed(f"it prints {printed.splitlines()[0][:60]!r}", "nothing on standard output", remedy)


def _no_slices_are_refused(trial: Trial) -> None:
    if "n_slices" not in _parameters(trial.method):
        return
    try:
        method = trial.make(**{**trial.settings, "n_slices": 0})
        if is_dataclass(method):
            check_ranges(method)
        trial.call(lambda: method.fit(planted()[0]))
    except ValueError:  # the benchmark takes any from a constructor, from fit InvalidInput only
        return
    remedy = 'write the range into the field: n_slices: int = field(default=5, metadata={"min": 1})'
    raise Failed("n_slices=0 is taken", "methods.InvalidInput", remedy)


def _losses_alone(trial: Trial) -> None:
    full, _ = planted()
    bare = ModelOutputs(full.example_ids, full.embeddings, full.losses, full.correct)
    remedy = 'begin with `if outputs.labels is None or outputs.logits is None: raise methods.Unsupported("needs ...")`'
    expected = "slices, or methods.Unsupported where there are no labels and logits"
    try:
        trial.found(bare)
    except Unsupported as error:
        _check_reason(error)
    except InvalidInput as error:
        raise Failed(f"{type(error).__name__}: {error}", expected, "raise methods.Unsupported") from error
    except Failed as failure:
        raise Failed(failure.seen, expected, remedy) from failure.__cause__


def _few_examples(trial: Trial) -> None:
    full, _ = planted()
    _works_or_is_refused(trial, _rows(full, slice(FEW)), f"{FEW} examples")


def _equal_examples(trial: Trial) -> None:
    full, _ = planted()
    same = {name: torch.ones_like(getattr(full, name)) for name in ("embeddings", "losses", "correct")}
    outputs = ModelOutputs(full.example_ids, **same, labels=full.labels, logits=full.logits)
    _works_or_is_refused(trial, outputs, "examples with one embedding and one loss")


def _works_or_is_refused(trial: Trial, outputs: ModelOutputs, what: str) -> None:
    try:
        trial.found(outputs)
    except InvalidInput as error:
        _check_reason(error)
    except Failed as failure:
        expected = f"slices of {what}, or methods.InvalidInput with the reason"
        raise Failed(failure.seen, expected, failure.remedy) from failure.__cause__


def _check_reason(error: InvalidInput) -> None:
    if not str(error).strip():
        remedy = f"raise {type(error).__name__}(reason)"
        raise Failed(f"{type(error).__name__} without a word", "the reason", remedy) from error


def _fit_many(trial: Trial) -> None:
    if not hasattr(trial.method, "fit_many"):
        return
    problems, seeds = _problems(), [0, 1]
    fitted = trial.call(lambda: list(with_seed(trial.method, 0).fit_many(problems, seeds)))
    if len(fitted) != len(problems) or not all(hasattr(one, "predict") for one in fitted):
        seen, expected = f"fit_many returned {len(fitted)} objects", f"{len(problems)} fitted methods"
        raise Failed(seen, expected, "return a fitted copy for each problem: copy.copy(self)")
    for one, outputs, seed in zip(fitted, problems, seeds, strict=True):
        remedy = "let each copy learn as fit does, from its own seed"
        _check_equal(trial.predicted(one, outputs), trial.found(outputs, seed=seed), "fit_many and fit", CLOSE, remedy)


def _fit_in_two_halves(trial: Trial) -> None:
    if not hasattr(trial.method, "fit_embeddings"):
        return
    problems = _problems()
    shared = trial.call(lambda: with_seed(trial.method, 0).fit_embeddings(problems[0]))
    halves = [trial.call(partial(copy.copy(shared).fit_losses, outputs)) for outputs in problems]
    for one, outputs in zip(halves, problems, strict=True):
        remedy = (
            "let fit_embeddings look at embeddings and logits only, and fit_losses change nothing of what it learned"
        )
        names = "fit_embeddings with fit_losses, and fit,"
        _check_equal(trial.predicted(one, outputs), trial.found(outputs), names, CLOSE, remedy)


def _problems() -> list[ModelOutputs]:
    """Two with the same embeddings, and other labels."""
    first, _ = planted()
    assert first.labels is not None
    return [first, first.relabelled(first.labels.roll(1))]


def _check_equal(found: Slices, expected: Slices, what: str, tolerance: float, remedy: str) -> None:
    if found.n_slices != expected.n_slices:
        raise Failed(f"{what} give {found.n_slices} and {expected.n_slices} slices", "the same slices", remedy)
    apart = (found.membership - expected.membership).abs() > tolerance
    if tolerance == 0:
        apart |= found.members != expected.members
    if apart.any():
        seen = f"{what} differ in {int(apart.sum())} of {apart.numel()} memberships"
        raise Failed(seen, "the same slices", remedy)


def _is_refusal(error: InvalidInput) -> bool:
    """Whether it is the method that refuses its input, and not `Slices` what the method gave to it."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return not any(isinstance(frame.f_locals.get("self"), Slices) for frame in frames)


def _rows(outputs: ModelOutputs, rows: slice) -> ModelOutputs:
    arrays = {name: value[rows] for name, value in vars(outputs).items() if isinstance(value, Tensor)}
    return ModelOutputs(outputs.example_ids[rows], **arrays)


def _parameters(method: Any) -> list[str]:
    """The settings that its constructor takes by name."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, one in inspect.signature(type(method)).parameters.items() if one.kind in kinds]


def _same(stored: Any, given: Any) -> bool:
    """Whether a setting is what was given, as far as one can see: a path may be given as a text, a tuple as a list."""
    if isinstance(stored, list | tuple) and isinstance(given, list | tuple):
        return list(stored) == list(given)
    try:
        return bool(stored == given) or str(stored) == str(given)
    except (TypeError, ValueError, RuntimeError):  # of arrays
        return True


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


CHECKS: Mapping[str, Callable[[Trial], None]] = {
    "the constructor only stores its settings": _constructor_only_stores,
    "fit returns the fitted method": _fit_returns_the_method,
    "predict returns slices of the examples that it is given": _predict_returns_slices,
    "members have a membership above 0": _members_have_membership,
    "there are no more slices than n_slices, if that is a setting": _no_more_than_n_slices,
    "slices carry no gradients": _no_gradients,
    "nothing is printed": _nothing_printed,
    "the same seed gives the same slices": _same_seed_same_slices,
    "fitting again forgets the first fit": _fitting_again_forgets,
    "other examples get slices too": _other_examples,
    "the input is not changed": _input_stays,
    "n_slices=0 is refused, if that is a setting": _no_slices_are_refused,
    "losses without labels and logits work, or are refused": _losses_alone,
    "a few examples work, or are refused": _few_examples,
    "equal embeddings and losses work, or are refused": _equal_examples,
    "fit_many gives what fit gives, if there is one": _fit_many,
    "fit_embeddings and fit_losses give what fit gives, if there are such": _fit_in_two_halves,
}
FIRST = (
    "fit returns the fitted method",
    "predict returns slices of the examples that it is given",
)  # all else needs them
