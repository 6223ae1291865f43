import subprocess
import sys

HEAVY = {"hydra", "omegaconf", "pydantic", "wandb", "transformers"}


def test_tables_of_scores_need_no_torch_and_no_statistics_of_scipy():
    code = "import sys, evaluation.intervals, evaluation.comparison; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "sklearn", "scipy.stats"} & set(loaded)


def test_evaluation_imports_without_the_pipelines_packages():
    code = "import sys, evaluation.scores, evaluation.intervals, evaluation.comparison; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "evaluation.scores" in loaded
    assert not HEAVY & set(loaded)
