import numpy as np
import pandas as pd
import pytest

from experiments.leaderboard import COLUMNS, OCCASION, Bootstrap, compare, differences, leaderboard
from experiments.runs import COLUMNS as TIDY

P10 = ("worst_slice", "precision_at_k", 10)
BOOTSTRAP = Bootstrap(resamples=500)


def scores(method="a", values=None, groups=None, seed=0, variant="", protocol="worst_slice", **changed):
    """Tidy rows with one value a problem; problems p0, p1 ... in groups g0, g0, g1, g1 ..."""
    values = [0.0, 1.0, 0.5, 0.5] if values is None else values
    groups = [f"g{i // 2}" for i in range(len(values))] if groups is None else groups
    row = {
        "dataset": "d",
        "model": "m",
        "embedding": "e",
        "corruption": "c",
        "kind": "k",
        "method": method,
        OCCASION: "x",
        "variant": variant,
        "run": f"{method}-{seed}",
        "seed": seed,
        "protocol": protocol,
        "true_slice": 0,
        "slice": 0,
        "metric": "precision_at_k",
        "k": 10,
    } | changed
    frame = pd.DataFrame(
        [{**row, "problem": f"p{i}", "group": groups[i], "value": v} for i, v in enumerate(values)],
        columns=[*TIDY, OCCASION],
    )
    return frame.astype({"true_slice": "Int64", "slice": "Int64", "k": "Int64", "seed": "Int64"})


def test_the_mean_is_over_problems_and_the_columns_are_as_promised():
    board = leaderboard(scores(), BOOTSTRAP)
    assert tuple(board.columns) == COLUMNS
    (row,) = board.to_dict("records")
    assert row["mean"] == 0.5
    assert (row["n_problems"], row["n_groups"], row["n_refused"]) == (4, 2, 0)


def test_it_may_be_of_some_measures_only():
    measures = [scores(), scores(metric="f1", k=None), scores(metric="f1", k=None, protocol="first"), scores(k=25)]
    everything = leaderboard(pd.concat(measures), BOOTSTRAP)
    some = leaderboard(pd.concat(measures), BOOTSTRAP, [P10, ("first", "f1", None)])
    chosen = (everything["k"] == 10) | (everything["protocol"] == "first")
    pd.testing.assert_frame_equal(some, everything[chosen.fillna(False)].reset_index(drop=True))


def test_an_interval_is_over_groups():
    # within a group the problems differ, but the groups are alike: there is nothing to be unsure about
    row = leaderboard(scores(values=[0.0, 1.0, 0.0, 1.0]), BOOTSTRAP).iloc[0]
    assert (row["low"], row["high"]) == (0.5, 0.5)
    row = leaderboard(scores(values=[0.0, 0.0, 1.0, 1.0]), BOOTSTRAP).iloc[0]
    assert row["low"] < 0.1 < 0.9 < row["high"]


def test_one_group_has_no_interval():
    row = leaderboard(scores(groups=["g"] * 4), BOOTSTRAP).iloc[0]
    assert np.isnan(row["low"])
    assert np.isnan(row["high"])


@pytest.mark.parametrize(
    "changed",
    [
        {"dataset": "other"},
        {"model": "other"},
        {"embedding": "other"},
        {"corruption": "c noise=0.05"},
        {"kind": "rare"},
        {"method": "b"},
        {"variant": "size=10"},
        {"protocol": "first"},
        {"metric": "recall_at_k"},
        {"k": 25},
    ],
)
def test_nothing_is_pooled(changed):
    board = leaderboard(pd.concat([scores(values=[0.0] * 4), scores(values=[1.0] * 4, **changed)]), BOOTSTRAP)
    assert sorted(board["mean"]) == [0.0, 1.0]


def test_seeds_are_pooled_within_their_group():
    board = leaderboard(pd.concat([scores(values=[0.0] * 4), scores(values=[1.0] * 4, seed=1)]), BOOTSTRAP)
    (row,) = board.to_dict("records")
    assert (row["mean"], row["n_problems"], row["n_groups"]) == (0.5, 8, 2)


def test_several_true_slices_of_a_problem_count_as_one_problem():
    board = leaderboard(pd.concat([scores(values=[0.0] * 4), scores(values=[1.0] * 4, true_slice=1)]), BOOTSTRAP)
    (row,) = board.to_dict("records")
    assert (row["mean"], row["n_problems"]) == (0.5, 4)


def test_refused_problems_are_counted_and_not_scored():
    refused = scores(values=[1.0], protocol=None, metric="refused", k=None, true_slice=None, slice=None)
    (row,) = leaderboard(pd.concat([scores(), refused]), BOOTSTRAP).to_dict("records")
    assert (row["n_refused"], row["mean"]) == (1, 0.5)


def test_the_best_and_who_cannot_be_told_apart():
    rng = np.random.default_rng(0)
    base = np.repeat(rng.random(12), 2)
    methods = {"good": base + 0.5, "alike": base + 0.5 + 0.01 * rng.standard_normal(24), "bad": base}
    frame = pd.concat([scores(name, values) for name, values in methods.items()])
    (comparison,) = compare(frame, P10, alpha=0.05)
    assert comparison.best.n_groups == 12
    assert {comparison.best.name, *comparison.best.indistinguishable} == {"good", "alike"}


def test_differences_are_paired():
    noise = np.linspace(0, 1, 8)
    frame = pd.concat([scores("a", noise + 0.1), scores("b", noise)])
    pairs = differences(frame, P10, BOOTSTRAP).set_index(["first", "second"])
    row = pairs.loc[("a", "b")]
    assert [row["difference"], row["low"], row["high"]] == pytest.approx([0.1, 0.1, 0.1])
    assert pairs.loc[("b", "a")]["difference"] == pytest.approx(-0.1)


def test_differences_use_the_problems_that_both_have():
    frame = pd.concat([scores("a", [1.0, 1.0, 1.0, 1.0]), scores("b", [0.0, 0.0])])
    row = differences(frame, P10, BOOTSTRAP).set_index(["first", "second"]).loc[("a", "b")]
    assert (row["difference"], row["n_problems"]) == (1.0, 2)


def test_methods_are_compared_on_the_problems_that_both_met():
    frame = pd.concat([scores("a", [1.0, 1.0, 1.0, 1.0]), scores("b", [0.0, 0.0, 0.0, 0.0], occasion="y")])
    pairs = differences(frame, P10, BOOTSTRAP)
    assert pairs["n_problems"].tolist() == [0, 0]
    assert pairs["difference"].isna().all()


def test_the_seeds_of_a_method_are_averaged_before_it_is_compared():
    frame = pd.concat([scores("a", [1.0] * 4), scores("a", [0.0] * 4, seed=1), scores("b", [0.25] * 4)])
    row = differences(frame, P10, BOOTSTRAP).set_index(["first", "second"]).loc[("a", "b")]
    assert (row["difference"], row["n_problems"]) == (0.25, 4)


def test_a_method_that_refuses_some_groups_spoils_no_comparison_of_the_others():
    groups = [f"g{i}" for i in range(12)]
    frame = pd.concat(
        [scores("good", [1.0] * 12, groups), scores("bad", [0.0] * 12, groups), scores("half", [0.9] * 3, groups[:3])]
    )
    (comparison,) = compare(frame, P10, alpha=0.05)
    assert comparison.best.name == "good"
    assert comparison.best.p_values["bad"] < 0.01
    assert comparison.best.indistinguishable == ("half",)
    assert comparison.best.n_groups == 3


def test_words_as_categories_give_the_same_numbers():
    methods = {"b": [1.0, 0.5, 1.0, 0.5, 0.25, 0.0], "a": [0.0, 0.5, 0.0, 0.5, 0.25, 0.75]}
    refused = scores("b", [1.0], ["g9"], protocol=None, metric="refused", k=None, true_slice=None, slice=None)
    text = pd.concat([*(scores(name, values) for name, values in methods.items()), refused], ignore_index=True)
    words = text.astype(dict.fromkeys(text.select_dtypes("str"), "category"))
    assert "category" in set(words.dtypes.astype(str))
    pd.testing.assert_frame_equal(leaderboard(words, BOOTSTRAP), leaderboard(text, BOOTSTRAP))
    pd.testing.assert_frame_equal(differences(words, P10, BOOTSTRAP), differences(text, P10, BOOTSTRAP))
    assert compare(words, P10, alpha=0.05) == compare(text, P10, alpha=0.05)
