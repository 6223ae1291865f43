"""The demo, with one draw of each digit instead of five."""

from pathlib import Path

import pandas as pd


def test_the_demo_compares_five_methods_and_the_good_ones_beat_random(slicebench):
    done = slicebench("run", "experiment=demo", "corruption.n_seeds=1")
    assert done.exit_code == 0, done.output
    assert len(list(Path("outputs/demo/digits").iterdir())) == 5
    printed = slicebench("collect", "outputs/demo").stdout
    for method in ("random", "highest_loss", "confusion", "gmm", "spotlight"):
        assert f" {method} " in printed
    pairs = pd.read_csv("outputs/demo/collected/differences.csv").query("metric == 'precision_at_k'")
    for method in ("spotlight", "gmm"):
        (row,) = pairs.query(f"first == '{method}' and second == 'random'").to_dict("records")
        assert row["low"] > 0
        assert row["n_problems"] == 10
    again = slicebench("run", "experiment=demo", "corruption.n_seeds=1")
    assert "5 runs: 5 done before, skipped" in again.stderr
    assert slicebench("collect", "outputs/demo").stdout == printed
