"""What influence embeddings will take, said and refused before they are computed."""

import re

import pytest

import experiments.embeddings.influence as embedding
import experiments.influence_forecast as influence_forecast
from experiments import training
from experiments.embedding import embed
from experiments.embeddings.influence import Work
from experiments.inference import infer
from experiments.loading import load_dataset
from experiments.training import train_or_load
from methods.influence import ModuleInfluence

LAYERS = ("embedding=influence", "embedding.layers=[hidden,classifier]", "embedding.rank=10")
QUICK = (*LAYERS, "embedding.krylov_dim=40", "embedding.n_hessian=300")
SENTENCE = (
    r"influence over [\d,]+ parameters, as measured on \d+ examples: factoring the Hessian takes about \d+ s and "
    r"\d+\.\d GB of memory, projecting the examples takes about \d+ s and \d+\.\d GB of memory"
)


def test_a_dry_run_tells_time_and_memory_and_computes_nothing(own_cache, slicebench):
    done = slicebench("run", "--dry-run", "method=infembed", *QUICK)
    assert re.search(SENTENCE, done.stdout), done.stdout + done.stderr
    assert "fewer steps with embedding.krylov_dim, fewer examples with embedding.n_hessian" in done.stdout
    assert "measuring the embedding on a few examples" in done.stderr
    assert not list(own_cache.rglob("*.npy"))


def test_a_dry_run_of_the_final_layer_tells_it_too(own_cache, slicebench):
    done = slicebench("run", "--dry-run", "method=infembed", "embedding=influence")
    assert re.search(r"influence over [\d,]+ parameters, as measured on 718 examples: factoring", done.stdout)


def test_what_is_cached_is_not_foreseen(slicebench):
    assert slicebench("run", "method=random", *QUICK).exit_code == 0
    assert "factoring" not in slicebench("run", "--dry-run", "method=infembed", *QUICK).stdout


@pytest.mark.parametrize("embedding", [["embedding=influence"], QUICK])
def test_a_dry_run_counts_what_embeddings_leave_on_disk(own_cache, slicebench, embedding):
    said = slicebench("run", "--dry-run", "method=random", *embedding).stdout
    needed = float(re.search(r"disk needed in .*: ([\d.]+) MB", said)[1])
    assert ("project test" in said) == (embedding == QUICK)
    assert slicebench("run", "method=random", *embedding).exit_code == 0
    written = sum(path.stat().st_size for path in own_cache.rglob("*") if path.is_file()) / 1e6
    assert 0.8 * needed < written < 1.2 * needed + 0.1


@pytest.mark.parametrize("dry_run", [["--dry-run"], []])
def test_factors_that_do_not_fit_are_refused_before_anything_is_computed(own_cache, slicebench, monkeypatch, dry_run):
    monkeypatch.setattr(training, "_one_epoch", lambda *_: pytest.fail("trained"))
    monkeypatch.setattr(embedding, "free_bytes", lambda _: 10**6)
    done = slicebench("run", "method=infembed", *LAYERS, *dry_run)
    assert done.exit_code == 2
    pattern = r"500 basis vectors x [\d,]+ parameters x 4 bytes = \d\.\d\d GB and 10 directions x .* of the 0.00 GB"
    assert re.search(pattern, done.stderr), done.stderr
    assert "choose fewer embedding.layers or a smaller embedding.krylov_dim" in done.stderr


@pytest.mark.parametrize(("long", "said"), [(0.0, True), (3600.0, False)])
def test_a_run_says_what_takes_long_before_it_starts(own_cache, slicebench, monkeypatch, long, said):
    monkeypatch.setattr(influence_forecast, "LONG", long)
    done = slicebench("run", "method=random", *QUICK)
    assert done.exit_code == 0, done.stderr
    assert bool(re.search(SENTENCE, done.stderr)) == said


def made(settings):
    dataset = load_dataset(settings)
    model = train_or_load(settings, dataset)
    return dataset, model, infer(settings, dataset, model)


def test_images_are_read_and_lead_to_the_chosen_layers_once(settings_of, own_cache, monkeypatch):
    settings = settings_of(*QUICK, "model.training.epochs=1")
    dataset, model, predictions = made(settings)
    monkeypatch.setattr(embedding, "announce", lambda *_: None)
    reads, fit = [], ModuleInfluence.fit
    batches = Work.batches
    monkeypatch.setattr(Work, "batches", lambda *given: reads.append(1) or batches(*given))

    def counted(*given, **options):
        before = len(reads)
        try:
            return fit(*given, **options)
        finally:
            assert len(reads) == before

    monkeypatch.setattr(ModuleInfluence, "fit", counted)
    embed(settings, dataset, model, predictions)
    assert len(reads) == 2  # for the factors, and for the table


def test_where_the_end_cannot_be_kept_the_whole_model_gives_the_same(settings_of, own_cache, monkeypatch):
    settings = settings_of(*QUICK, "model.training.epochs=1")
    work = Work(settings.embedding.instance, settings, *made(settings))
    with work.module() as (module, layers):
        end = work.end(module, layers, work.rows)
        assert (end.kept > 0, end.layers) == (True, tuple(f"module.{name}" for name in layers))
        monkeypatch.setattr(embedding, "free_bytes", lambda _: 10**6)
        whole = work.end(module, layers, work.rows)
        assert (whole.kept, whole.layers, whole.module) == (0, layers, module)
