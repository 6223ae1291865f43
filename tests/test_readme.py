"""What the README says, done."""

import re
from pathlib import Path

import pandas as pd
import pytest

from experiments.listing import items

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README.read_text(), flags=re.DOTALL)


def commands():
    lines = [line.split("#")[0].split() for _, block in BLOCKS for line in block.splitlines()]
    return [words[1:] for words in lines if words[:1] == ["slicebench"]]


def test_your_own_method_in_one_file_works_as_written(slicebench, workspace):
    (code,) = [block for language, block in BLOCKS if language == "python"]
    (workspace / "distance.py").write_text(code)
    (command,) = [words for words in commands() if "--import-path" in words]
    done = slicebench(*command)
    assert done.exit_code == 0, done.stderr
    done = slicebench("collect", "outputs")
    assert "NearWorst size=30" in done.stdout
    board = pd.read_csv("outputs/collected/leaderboard.csv")
    row = board.query("protocol == 'worst_slice' and metric == 'precision_at_k' and k == 10").iloc[0]
    assert row["mean"] > 0.5


@pytest.mark.parametrize("words", [w for w in commands() if "--import-path" not in w], ids=" ".join)
def test_every_command_is_accepted(slicebench, workspace, own_cache, words):
    slicebench("run", "method=random")
    slicebench("run", "method=random", "paths.results=outputs/methods")
    dry = ["--dry-run"] if words[0] == "run" and "--dry-run" not in words else []
    done = slicebench(*words, *dry)
    assert done.exit_code == 0, done.output


def test_every_method_is_in_the_table():
    text = README.read_text()
    for item in items("methods"):
        assert f"| `{item['name']}` |" in text


def test_every_folder_is_named_with_a_phrase():
    text = README.read_text()
    folders = ("conf", "methods", "evaluation", "experiments", "tests", "scripts")
    assert [folder for folder in folders if f"| `{folder}/`" not in text] == []
