"""Each check fails on a method that is broken in its way, and on no other."""

import copy
from dataclasses import dataclass, field

import pytest
import torch

from methods.checks import CHECKS, Failed, Trial, findings, planted, precision_at_10
from methods.contract import InvalidInput, ModelOutputs, Slices, Unsupported


@dataclass
class Good:
    """The examples of highest loss, and those near to the worst."""

    n_slices: int = field(default=2, metadata={"min": 1})
    seed: int = 0

    def __post_init__(self):
        """What is broken may do something here."""

    def fit(self, outputs):
        self.range_ = (outputs.losses.max() - outputs.losses.min()).clamp_min(1e-6)
        self.center_ = outputs.embeddings[outputs.losses.argmax()]
        return self

    def predict(self, outputs):
        ranks = 1 - outputs.losses.argsort(descending=True).argsort() / outputs.n_examples
        near = 1 / (1 + (outputs.embeddings - self.center_).norm(dim=1))
        membership = torch.stack([ranks, near], dim=1)[:, : self.n_slices]  # (n, s)
        return Slices(outputs.example_ids, membership, membership > 0.5)


class LearnsInTheConstructor(Good):
    def __post_init__(self):
        self.center_ = None


class ForgetsASetting:
    def __init__(self, size: int = 3):
        self.number = size

    fit, predict = Good.fit, Good.predict
    n_slices = 2


class ChangesASetting(Good):
    def __post_init__(self):
        self.n_slices += 1


class ReturnsNothing(Good):
    def fit(self, outputs):
        super().fit(outputs)


class DividesByZero(Good):
    def fit(self, outputs):
        return 1 / 0


class EndsTheProcess(Good):
    def fit(self, outputs):
        raise SystemExit(3)


class RefusesAll(Good):
    def fit(self, outputs):
        raise InvalidInput("size is 1000, expected at most 400")


class ReturnsATensor(Good):
    def predict(self, outputs):
        return outputs.losses


class ReturnsOtherIds(Good):
    def predict(self, outputs):
        return Slices.none(("x",))


class ReturnsNaN(Good):
    def predict(self, outputs):
        membership = torch.full((outputs.n_examples, 1), torch.nan)
        return Slices(outputs.example_ids, membership, membership > 0)


class RemembersTheIds(Good):
    def fit(self, outputs):
        self.ids_ = outputs.example_ids
        return super().fit(outputs)

    def predict(self, outputs):
        found = super().predict(outputs)
        return Slices(self.ids_[: outputs.n_examples], found.membership, found.members)


class RefusesOthers(Good):
    def fit(self, outputs):
        self.ids_ = outputs.example_ids
        return super().fit(outputs)

    def predict(self, outputs):
        if outputs.example_ids != self.ids_:
            raise Unsupported("these are other examples than those of fit")
        return super().predict(outputs)


class HasMembersOfNoWeight(Good):
    def predict(self, outputs):
        found = super().predict(outputs)
        return Slices(found.example_ids, found.membership * 0, found.members)


class FindsTooMany(Good):
    def predict(self, outputs):
        found = super().predict(outputs)
        membership = found.membership.repeat(1, 2)
        return Slices(found.example_ids, membership, membership > 0.5)


class KeepsGradients(Good):
    def predict(self, outputs):
        found = super().predict(outputs)
        return Slices(found.example_ids, found.membership.clone().requires_grad_(), found.members)


class Prints(Good):
    def fit(self, outputs):
        print("epoch 1")
        return super().fit(outputs)


class DrawsAnew(Good):
    """From a generator that it was made with: whoever copies it shares it."""

    def __post_init__(self):
        self.generator = torch.Generator().manual_seed(self.seed)

    def predict(self, outputs):
        membership = torch.rand(outputs.n_examples, 1, generator=self.generator)
        return Slices(outputs.example_ids, membership, membership > 0.5)


class Remembers(Good):
    def fit(self, outputs):
        first = getattr(self, "first_", outputs.embeddings[outputs.losses.argmax()])
        super().fit(outputs)
        self.first_ = self.center_ = first
        return self


class ChangesItsInput(Good):
    def fit(self, outputs):
        outputs.losses.sub_(1e-3)
        return super().fit(outputs)


class TakesAnyNumber:
    def __init__(self, n_slices: int = 2):
        self.n_slices = n_slices

    fit, predict = Good.fit, Good.predict


class NeedsLabels(Good):
    def fit(self, outputs):
        assert len(outputs.labels) == outputs.n_examples
        return super().fit(outputs)


class RefusesWithoutLabelsInTheWrongWay(Good):
    def fit(self, outputs):
        if outputs.labels is None:
            raise InvalidInput("there are no labels")
        return super().fit(outputs)


class NeedsMany(Good):
    def fit(self, outputs):
        outputs.losses.topk(20)
        return super().fit(outputs)


class RefusesFewWithoutAWord(Good):
    def fit(self, outputs):
        if outputs.n_examples < 20:
            raise InvalidInput
        return super().fit(outputs)


class DividesByTheRange(Good):
    def predict(self, outputs):
        membership = (outputs.losses - outputs.losses.min()) / (outputs.losses.max() - outputs.losses.min())
        return Slices(outputs.example_ids, membership[:, None], membership[:, None] > 0.5)


class FitsManyAlike(Good):
    def fit_many(self, outputs, seeds):
        return [copy.copy(self.fit(outputs[0])) for _ in outputs]


class FitsTooFew(Good):
    def fit_many(self, outputs, seeds):
        return []


class SharesTooMuch(Good):
    def fit_embeddings(self, outputs):
        return self.fit(outputs)

    def fit_losses(self, outputs):
        return self


# beside what is broken: the check that says so, and what it says
BROKEN = {
    LearnsInTheConstructor: ("the constructor only", "the constructor sets center_"),
    ForgetsASetting: ("the constructor only", "the setting 'size' cannot be read back"),
    ReturnsNothing: ("fit returns", "fit returned nothing"),
    DividesByZero: ("fit returns", "ZeroDivisionError: division by zero (test_checks.py, line "),
    EndsTheProcess: ("fit returns", "SystemExit: 3 (test_checks.py, line "),
    RefusesAll: ("fit returns", "it refuses 400 examples with 5 columns and 4 classes: size is 1000"),
    ReturnsATensor: ("predict returns", "predict returned a Tensor"),
    ReturnsOtherIds: ("predict returns", "predict returned 1 ids, from 'x'"),
    ReturnsNaN: ("predict returns", "membership is not finite at row 0 ('000') (test_checks.py, line "),
    RemembersTheIds: ("other examples", "predict returned 360 ids, from '000', expected the 360 ids"),
    RefusesOthers: ("other examples", "these are other examples than those of fit"),
    HasMembersOfNoWeight: ("members have", "is a member of slice 1 with membership 0"),
    FindsTooMany: ("there are no more", "4 slices came back for n_slices=2"),
    KeepsGradients: ("slices carry", "membership carries a gradient"),
    Prints: ("nothing is printed", "it prints 'epoch 1'"),
    DrawsAnew: ("the same seed", "two fits with one seed differ in 400 of 400 memberships"),
    Remembers: ("fitting again", "differ in "),
    ChangesItsInput: ("the input", "losses is changed in place"),
    TakesAnyNumber: ("n_slices=0", "n_slices=0 is taken"),
    NeedsLabels: ("losses without", "TypeError: object of type 'NoneType' has no len() (test_checks.py, line "),
    RefusesWithoutLabelsInTheWrongWay: ("losses without", "InvalidInput: there are no labels"),
    NeedsMany: ("a few examples", "RuntimeError: "),
    RefusesFewWithoutAWord: ("a few examples", "InvalidInput without a word"),
    DividesByTheRange: ("equal embeddings", "membership is not finite at row 0"),
    FitsManyAlike: ("fit_many", "fit_many and fit differ in "),
    FitsTooFew: ("fit_many", "fit_many returned 0 objects, expected 2"),
    SharesTooMuch: ("fit_embeddings", "fit_embeddings with fit_losses, and fit, differ in "),
}
ALSO = {DrawsAnew: "fitting again"}  # what else cannot be right then


def test_a_good_method_passes_all_checks():
    assert [finding.state for finding in findings(Trial(Good))] == ["ok"] * len(CHECKS)
    assert precision_at_10(Trial(Good)) == 1.0


def test_each_check_has_a_method_that_fails_it():
    assert len(BROKEN) > 1
    for check in CHECKS:
        assert any(check.startswith(begins) for begins, _ in BROKEN.values()), check


@pytest.mark.parametrize("method", BROKEN, ids=lambda method: method.__name__)
def test_what_is_broken_is_said_by_its_check_alone(method):
    begins, seen = BROKEN[method]
    failed = [finding for finding in findings(Trial(method)) if finding.state == "failed"]
    assert [one.check for one in failed if not one.check.startswith(ALSO.get(method, "-"))] == [
        check for check in CHECKS if check.startswith(begins)
    ]
    told = failed[0]
    assert seen in f"{told.seen}, expected {told.expected}"
    assert told.expected
    assert told.remedy


def test_a_setting_must_stay_as_it_is_given():
    with pytest.raises(Failed, match="n_slices=3 became 4; expected settings that are stored as they are: derive"):
        CHECKS["the constructor only stores its settings"](Trial(ChangesASetting, n_slices=3))


def test_where_nothing_comes_back_the_rest_is_not_reached():
    states = {finding.check: finding.state for finding in findings(Trial(ReturnsNothing))}
    assert states["the constructor only stores its settings"] == "ok"
    assert states["the input is not changed"] == "not reached"


def test_an_error_of_the_method_is_kept_for_a_traceback():
    (failed,) = [finding for finding in findings(Trial(DividesByZero)) if finding.state == "failed"]
    assert isinstance(failed.error, ZeroDivisionError)


def test_random_slices_find_nothing_planted():
    class Blind(Good):
        def predict(self, outputs):
            return Slices.none(outputs.example_ids)

    assert precision_at_10(Trial(Blind)) == 0.0


def test_what_is_planted_differs_between_seeds_and_sizes():
    outputs, in_slice = planted("cell", seed=3, size=10, before="x")
    assert (outputs.n_examples, int(in_slice.sum()), outputs.example_ids[0]) == (80, 10, "x000")
    assert (~outputs.correct[in_slice]).all()
    assert outputs.correct[~in_slice].all()
    assert isinstance(outputs, ModelOutputs)
