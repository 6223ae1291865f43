"""A method of the user's against the contract, as on the command line."""

import json
import re
from pathlib import Path

import pytest

from methods.checks import CHECKS

README = Path(__file__).parents[2] / "README.md"
(GOOD,) = re.findall(r"`distance\.py`:\n\n```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
NOTHING_BACK = GOOD.replace("        return self\n", "")
DIVIDES = GOOD.replace("        distances = ", "        1 / 0\n        distances = ")
SEEDED = GOOD.replace("    size: int", "    seed: int\n    size: int")


@pytest.fixture
def distance(workspace):
    """Write `distance.py`."""
    return (workspace / "distance.py").write_text


def test_a_good_method_keeps_the_contract(slicebench, distance):
    distance(GOOD)
    done = slicebench("validate", "distance.py:NearWorst", "size=30")
    assert done.exit_code == 0, done.output
    assert f"{len(CHECKS)} of {len(CHECKS)} checks are passed." in done.stdout
    assert "failed" not in done.stdout
    assert "with a precision-at-10 of 1.00, in 0.0" in done.stdout


def test_all_of_it_is_there_as_json(slicebench, distance):
    distance(f"print('hello')\n{NOTHING_BACK}")
    done = slicebench("validate", "distance.py:NearWorst", "--json")
    assert done.exit_code == 1
    assert done.stdout.startswith("{")
    found = json.loads(done.stdout)
    assert (found["target"], found["ok"]) == ("distance.py:NearWorst", False)
    assert (found["precision_at_10"], found["seconds"]) == (None, None)
    assert [check["check"] for check in found["checks"]] == list(CHECKS)
    assert found["checks"][1] == {
        "check": "fit returns the fitted method",
        "state": "failed",
        "seen": "fit returned nothing",
        "expected": "the fitted method",
        "remedy": "end fit with `return self`",
    }
    assert {check["state"] for check in found["checks"][2:]} == {"not reached"}


def test_a_failure_says_what_was_seen_what_was_expected_and_how_to_mend_it(slicebench, distance):
    distance(NOTHING_BACK)
    done = slicebench("validate", "distance.py:NearWorst")
    assert done.exit_code == 1
    told = " ".join(done.stdout.split())
    assert "failed fit returned nothing expected: the fitted method to mend it: end fit with `return self`" in told
    assert f"1 of {len(CHECKS)} checks are passed, {len(CHECKS) - 2} were not reached." in told


def test_an_error_in_the_method_is_a_line_and_with_debug_a_traceback(slicebench, distance):
    distance(DIVIDES)
    line = GOOD.splitlines().index("        distances = (outputs.embeddings - self.center_).norm(dim=1)  # (n,)") + 1
    done = slicebench("validate", "distance.py:NearWorst")
    assert done.exit_code == 1
    assert f"ZeroDivisionError: division by zero (distance.py, line {line})" in done.stdout
    assert "Traceback" not in done.output
    assert "Traceback" in slicebench("validate", "distance.py:NearWorst", "--debug").stderr


def test_a_dotted_path_is_taken_too(slicebench, workspace):
    (workspace / "mine").mkdir()
    (workspace / "mine" / "by_its_path.py").write_text(SEEDED)
    done = slicebench("validate", "by_its_path.NearWorst", "method.size=30", "--import-path", "mine")
    assert done.exit_code == 0, done.output
    done = slicebench("validate", "methods.HighestLoss", "--json")
    assert (done.exit_code, json.loads(done.stdout)["ok"]) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["distance.py:NearWorst"], "class NearWorst\n", "SyntaxError: expected ':' (distance.py, line 1)"),
        (["distance.py:NearWrost"], GOOD, "distance.py has no 'NearWrost'; the nearest is NearWorst"),
        (["distnace.py:NearWorst"], GOOD, "there is no file distnace.py in "),
        (["distance.py:NearWorst", "sise=3"], GOOD, "NearWorst has no setting 'sise'; the nearest is size"),
        (["distance.py:NearWorst", "size=0"], GOOD, "NearWorst.size is 0, expected at least 1"),
        (["distance.py:NearWorst", "size=few"], GOOD, "NearWorst.size is 'few', expected a whole number"),
        (["distance.py:NearWorst", "size"], GOOD, "'size' is no setting, expected KEY=VALUE"),
        (["distance.py:NearWorst", "size=1,2"], GOOD, "'size=1,2' is not one setting"),
        (
            ["distance.py:NearWorst"],
            GOOD.replace("predict", "guess"),
            "a class that can fit and predict: it has no predict",
        ),
        (["distance.py:NearWorst"], GOOD.replace("50", "1 / 0"), "division by zero (distance.py, line 12)"),
        (
            ["distance.py:NearWorst"],
            f"{GOOD}\n    def __post_init__(self):\n        self.nothing.there\n",
            "NearWorst cannot be made: AttributeError: 'NearWorst' object has no attribute 'nothing'",
        ),
        (["distance.py:NearWorst", "--import-path", "nowhere"], GOOD, "--import-path nowhere is no folder"),
    ],
)
def test_what_cannot_be_loaded_or_made_is_told_in_one_line(slicebench, distance, arguments, code, says):
    distance(code)
    done = slicebench("validate", *arguments)
    assert done.exit_code == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout
