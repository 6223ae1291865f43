"""Influence embeddings: over a final linear layer beside captum, and of a ResNet's end as foreseen."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarks.measuring import Measured, Row, Section, measured
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, TensorDataset

from experiments.contract import Dataset
from experiments.embeddings.influence import Work
from experiments.inference import infer
from experiments.loading import load_dataset
from experiments.settings import settings_of
from experiments.training import train_or_load
from methods.influence import residuals
from methods.influence_estimate import Estimate
from methods.influence_linear import LinearInfluence

THREADS = 2
EXAMPLES, FEATURES, CLASSES = 5_000, 512, 1_000
STEPS, RANK = 500, 100
PEERS_STEPS, PEERS_RANK = 100, 50  # captum takes over five minutes for 500
LEADING = 10  # directions that both have found by then
N_PROJECTED = 32  # rows that captum projects
PARAMETERS = CLASSES * (FEATURES + 1)
N_PICTURES, N_TEST = 64, 16
RESNET = (
    *("model=torchvision", "model.name=resnet18", "model.weights=null", "tracking=none", f"compute.threads={THREADS}"),
    *("embedding=influence", "embedding.layers=[fc,layer4]", f"embedding.n_hessian={N_PICTURES}"),
    *("embedding.krylov_dim=8", "embedding.rank=4", "evaluation.fit_split=test"),
)


def section() -> Section:
    """Check that captum finds the same directions, then time both; then foresee, and look how it was."""
    features, logits, labels, layer = _layer()
    r = residuals(logits, labels)
    ours = LinearInfluence.fit(features, logits, krylov_dim=PEERS_STEPS, rank=PEERS_RANK)
    start = time.perf_counter()
    peer = _captum(layer, features, labels)
    peers_seconds = time.perf_counter() - start
    _check(ours, peer, features, r, labels)
    rows, of_all = _factoring(features, logits, Measured(peers_seconds))
    rows += [_projecting_as_captum(ours, peer, features, r, labels), _projecting(of_all, features, r), *_foreseen()]
    return Section(
        f"A final linear layer {FEATURES} -> {CLASSES:,} ({PARAMETERS:,} parameters), {EXAMPLES:,} examples; and the "
        "last stages of a ResNet-18 (8.4 million parameters), as foreseen and as measured.",
        rows,
    )


def _layer() -> tuple[Tensor, Tensor, Tensor, nn.Linear]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(EXAMPLES, FEATURES, generator=generator).relu_()
    layer = nn.Linear(FEATURES, CLASSES)
    with torch.no_grad():
        layer.weight.copy_(0.15 * torch.randn(CLASSES, FEATURES, generator=generator))
        layer.bias.zero_()
        logits = layer(features)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator).flatten()
    return features, logits, labels, layer


def _captum(layer: nn.Linear, features: Tensor, labels: Tensor) -> Any:
    """Captum's factors: all examples in one batch, which is what it is fastest with."""
    from captum.influence._core.arnoldi_influence_function import ArnoldiInfluenceFunction

    data = TensorDataset(features, labels)
    at_once = BatchSampler(SequentialSampler(data), EXAMPLES, drop_last=False)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(layer.state_dict(), Path(folder, "layer.pt"))
        return ArnoldiInfluenceFunction(
            layer,
            DataLoader(data, sampler=at_once, batch_size=None),
            str(Path(folder, "layer.pt")),
            loss_fn=nn.CrossEntropyLoss(reduction="none"),
            arnoldi_dim=PEERS_STEPS,
            arnoldi_tol=1e-9,
            projection_dim=PEERS_RANK,
            hessian_reg=0.0,
            hessian_inverse_tol=1e-9,
        )


def _check(ours: LinearInfluence, peer: Any, features: Tensor, r: Tensor, labels: Tensor) -> None:
    """The leading directions are the same up to their signs: each example has the same coordinates."""
    few = slice(N_PROJECTED)
    theirs = _projected(peer, features[few], labels[few])
    mu = ours.embed(features[few], r[few])[:, :LEADING]
    order = theirs.abs().T @ mu.abs()  # (their columns, ours)
    cosines = order / theirs.norm(dim=0)[:, None] / mu.norm(dim=0)
    for column, theirs_at in enumerate(cosines.argmax(dim=0).tolist()):
        sign = torch.dot(theirs[:, theirs_at], mu[:, column]).sign()
        error = (sign * theirs[:, theirs_at] - mu[:, column]).norm() / mu[:, column].norm()
        assert error < 0.02, (column, float(error))


def _projected(peer: Any, features: Tensor, labels: Tensor) -> Tensor:
    found: Tensor = peer.compute_intermediate_quantities((features, labels))
    return found


def _factoring(features: Tensor, logits: Tensor, peers: Measured) -> tuple[list[Row], LinearInfluence]:
    """As many steps as captum ran, and all of them; and what these gave."""
    short = measured(
        lambda: LinearInfluence.fit(features, logits, krylov_dim=PEERS_STEPS, rank=PEERS_RANK), runs=3, warm_up=False
    )
    found: list[LinearInfluence] = []
    long = measured(
        lambda: found.append(LinearInfluence.fit(features, logits, krylov_dim=STEPS, rank=RANK)), runs=1, warm_up=False
    )
    short_floor, long_floor = (_floor(features, logits, steps) / steps for steps in (PEERS_STEPS, STEPS))
    return [
        Row(
            f"factor: a step of {PEERS_STEPS}, D = {PEERS_RANK}",
            short.scaled(1 / PEERS_STEPS),
            "captum",
            peers.scaled(1 / PEERS_STEPS),
            short_floor,
            "2.5 times faster",
            peers.seconds > 2.5 * short.seconds,
            f"captum would take over five minutes for {STEPS} steps (extrapolated: a later step has more to make "
            "itself orthogonal to, and captum's takes one vector after the other).",
        ),
        Row(
            f"factor: a step of {STEPS}, D = {RANK}",
            long.scaled(1 / STEPS),
            floor=long_floor,
            note=f"all of them took {long.seconds:.3g} s",
        ),
    ], found[0]


def _floor(features: Tensor, logits: Tensor, steps: int) -> float:
    """The products' two matrix products, and the basis so far read twice in each step."""
    change = torch.randn_like(logits)
    weight = torch.randn(CLASSES, FEATURES)
    products = measured(lambda: (features @ weight.T, change.T @ features)).seconds
    block = torch.ones(2**28)  # 1.1 GB
    read = measured(lambda: block.sum()).seconds / block.nbytes
    return steps * products + steps**2 / 2 * PARAMETERS * 4 * 2 * read


def _projecting_as_captum(ours: LinearInfluence, peer: Any, features: Tensor, r: Tensor, labels: Tensor) -> Row:
    few = slice(N_PROJECTED)
    theirs = measured(lambda: _projected(peer, features[few], labels[few]), runs=3)
    return Row(
        f"project: a row, D = {PEERS_RANK}",
        measured(lambda: ours.embed(features, r)).scaled(1 / EXAMPLES),
        "captum",
        theirs.scaled(1 / N_PROJECTED),
        note=f"{EXAMPLES:,} rows, captum {N_PROJECTED}",
    )


def _projecting(influence: LinearInfluence, features: Tensor, r: Tensor) -> Row:
    ours = measured(lambda: influence.embed(features, r))
    rate = EXAMPLES / ours.seconds
    return Row(
        f"project: a row, D = {RANK}",
        ours.scaled(1 / EXAMPLES),
        target="2,000 rows a second",
        reached=rate >= 2000,
        note=f"{rate:,.0f} rows a second",
    )


def _foreseen() -> list[Row]:
    """A reduced run over the last stages of a ResNet-18, on real pictures and random weights."""
    what = f"ResNet-18, fc and layer4, {N_PICTURES} pictures, P = 8, D = 4"
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_of([*_pictures(Path(folder)), *RESNET])
        dataset = load_dataset(settings)
        assert isinstance(dataset, Dataset)
        model = train_or_load(settings, dataset)
        predictions, embedding = infer(settings, dataset, model), settings.embedding.instance
        forecast = embedding.forecast(settings, dataset, model, ["test"])
        work = Work(embedding, settings, dataset, model, predictions)
        # not as in a run, which keeps freed memory: what is used twice would then count once
        factoring, projecting = _once(lambda: work.factors), _once(lambda: work.embedded("test"))
    return [
        _as_foreseen(f"{what}: factor", factoring, forecast.factors),
        _as_foreseen(f"{what}: project {N_TEST}", projecting, forecast.table),
        _on_a_gpu(),
    ]


def _pictures(folder: Path) -> list[str]:
    """Real pictures of eight classes as a data set."""
    source = Path(os.environ["SLICEBENCH_DATA"], "tiny-imagenet-superclasses", "train")
    for name in sorted(path.name for path in source.iterdir())[:8]:
        for at, picture in enumerate(sorted(source.glob(f"{name}/*/*.JPEG"))[: (N_PICTURES + N_TEST) // 8]):
            to = folder / "data" / ("test" if at < N_TEST // 8 else "train") / name / picture.name
            to.parent.mkdir(parents=True, exist_ok=True)
            to.symlink_to(picture)
    return ["dataset=image_folder", f"dataset.path={folder / 'data'}", f"paths.cache={folder / 'cache'}"]


def _once(act: Callable[[], object]) -> Measured:
    """One call of what is cached afterwards."""
    return measured(act, runs=1, warm_up=False)


def _as_foreseen(work: str, ours: Measured, foreseen: Estimate) -> Row:
    time_ratio, memory_ratio = foreseen.seconds / ours.seconds, foreseen.peak_bytes / max(1, ours.peak_bytes)
    return Row(
        work,
        ours,
        "the forecast",
        Measured(foreseen.seconds),
        target="foreseen within a factor of two",
        reached=all(0.5 <= ratio <= 2 for ratio in (time_ratio, memory_ratio)),
        note=f"foreseen {foreseen.peak_bytes / 1e9:.2f} GB, measured {ours.peak_bytes / 1e9:.2f} GB",
    )


def _on_a_gpu() -> Row:
    """P = 500, D = 100 over 5,000 pictures, where there is a GPU."""
    work = f"ResNet-18 fc and layer4, {EXAMPLES:,} pictures, P = {STEPS}, D = {RANK}, on a GPU: factor"
    if not torch.cuda.is_available():
        return Row(work, note="no GPU here")
    from torchvision.models import get_model

    from methods.influence import ModuleInfluence
    from methods.influence_end import cut

    module = get_model("resnet18", weights=None).cuda().eval()
    pictures = [(torch.randn(100, 3, 224, 224).cuda(), torch.randint(0, 1000, (100,)).cuda()) for _ in range(50)]
    end = cut(module, ["fc", "layer4"], lambda: pictures)
    assert end is not None

    def fit() -> None:
        ModuleInfluence.fit(end.module, end.layers, end.batches, krylov_dim=STEPS, rank=RANK)
        torch.cuda.synchronize()

    return Row(work, measured(fit, runs=1, warm_up=False))
