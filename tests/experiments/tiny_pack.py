"""A data root with a few examples of everything that scale=here of the prepared experiments reads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.loaders.fairface import AGES, RACES
from experiments.reading.dcbench import INDEX, KINDS, PREDICTIONS, ProblemEntry
from experiments.suites.making import ARTIFACTS
from experiments.suites.storing import prediction_columns, write_index, write_panel
from tests.experiments.loaders import (
    test_adult,
    test_ag_news,
    test_amazon_polarity,
    test_bone_age,
    test_chest_xray,
    test_covid_xray,
    test_fairface,
    test_imagenet,
    test_imagenet_superclass,
    test_movielens,
    test_squad,
    test_sst2,
    test_wine,
)
from tests.experiments.models.conftest import save_text_checkpoint

SUITES = ("natural_images", "medical_images", "time_series")
IMAGES = {".jpg", ".jpeg", ".png", ".JPEG", ".PNG"}
PIXELS = 16
CONTEXT = "Mara went up the hill in 1900 with two dogs and a kite of blue paper."


def write_pack(root: Path) -> Path:
    """The whole pack, below this folder: in seconds, and always the same."""
    _write_images(root)
    _write_texts(root)
    _write_tables(root)
    for number, name in enumerate(SUITES):
        _write_suite(root / "suites" / name, np.random.default_rng(number))
    _write_models(root / "models")
    return root


def _write_images(root: Path) -> None:
    faces = {"train": 24, "val": 30}
    test_fairface.publish(
        root,
        **{name: [f"{name}/{i}.jpg,{_face(i)}" for i in range(n)] for name, n in faces.items()},
        images=[f"{name}/{i}" for name, n in faces.items() for i in range(n)],
    )
    test_chest_xray.publish(root, train=_xrays(range(12)), test=_xrays(range(50, 58)))
    test_bone_age.publish(root)
    covid = [[str(i), "0", "M", "65", "COVID-19", *PLACE, f"c{i}.jpeg"] for i in range(40)]
    other = [[str(i), "", "F", "", "Klebsiella", *PLACE, f"k{i}.jpeg"] for i in range(40, 70)]
    test_covid_xray.publish(root, rows=[*covid, *other])
    names = [f"{i:04x}" for i in range(24)]
    labels = [str(i % 12 * 80 + 1) for i in range(24)]
    test_imagenet.compete(root, list(zip(names, labels, strict=True)), [f"{name}.png" for name in names])
    test_imagenet_superclass.publish_tiny(root, n=8)
    _repaint(root)


PLACE = ("PA", "X-ray", "Town, Country", "images")


def _face(i: int) -> str:
    return f"{AGES[i % len(AGES)]},{('Male', 'Female')[i % 2]},{RACES[i % len(RACES)]},True"


def _xrays(patients: Iterable[int]) -> dict[str, list[str]]:
    """Two normal x-rays, and two of pneumonia, for each number."""
    return {
        "NORMAL": [f"IM-{i:04d}-{j:04d}" for i in patients for j in (1, 2)],
        "PNEUMONIA": [f"person{i}_{cause}_1" for i in patients for cause in ("bacteria", "virus")],
    }


def _repaint(root: Path) -> None:
    """Noise of some brightness in place of the loaders' pictures, which are all alike."""
    rng = np.random.default_rng(0)
    for file in sorted(path for path in root.rglob("*") if path.suffix in IMAGES):
        with Image.open(file) as image:
            mode, kind = image.mode, image.format
        noise = rng.integers(0, 128, (PIXELS, PIXELS, 3)) + rng.integers(0, 128)
        Image.fromarray(noise.astype(np.uint8)).convert(mode).save(file, format=kind)


def _write_texts(root: Path) -> None:
    test_amazon_polarity.publish_blitzer(root, domains=("books", "dvd", "electronics", "kitchen"), n=5)
    sentences = [f"the film was {('bad', 'good')[i % 2]} , number {i} \t{i % 2}" for i in range(24)]
    test_sst2.publish(root, train=sentences, dev=sentences[:4])
    news = [test_ag_news.article(i) for i in range(40)]
    noisy = [test_ag_news.annotated(100 + i, (i + (i % 3 == 0)) % 4, i % 4) for i in range(64)]
    test_ag_news.publish(root, test=news, noisy=noisy)
    words = [word.strip(".") for word in CONTEXT.split()]
    asked = [test_squad.asked(f"q{i:02d}", f"What of {word} is there?", CONTEXT, word) for i, word in enumerate(words)]
    article = {"title": "Mara", "paragraphs": [{"context": CONTEXT, "qas": asked}]}
    lighthouse = test_squad.squad({"Lighthouse": test_squad.questions()["Lighthouse"]})["data"]
    test_squad.publish(root, {"data": [article, *lighthouse], "version": "1.1"}, "xquad.en.json")
    sails = [test_squad.row("Windmill", f"How many sails has it, asked {i} times?", "four") for i in range(12)]
    test_squad.publish(root, sails, "routerlens_dev_4330.json")


def _write_tables(root: Path) -> None:
    rng = np.random.default_rng(0)
    test_adult.publish(root, *(_people(rng, n, end) for n, end in ((60, ""), (40, "."))))
    test_wine.publish(root, test_wine.rows_of(5, 24), test_wine.rows_of(100, 36))
    users = [f"{u}|{20 + u}|{'FM'[u % 2]}|student|55105" for u in range(1, 11)]
    films = [f"{i}|Film {i} ({1980 + i})|01-Jan-{1980 + i}||http://films.example/{i}|0|{i % 2}|1" for i in range(1, 13)]
    pairs = [(u, i) for u in range(1, 11) for i in range(1, 13)]
    stars = rng.permutation(np.arange(len(pairs)) % 5 + 1)
    ratings = [f"{u}\t{i}\t{given}\t880000001" for (u, i), given in zip(pairs, stars, strict=True)]
    test = ratings[::3]
    base = [line for line in ratings if line not in test]
    test_movielens.publish(root, u1_base=base, u1_test=test, u_item=films, u_user=users)
    (root / "ml-100k/u.info").write_text(f"10 users\n12 items\n{len(ratings)} ratings\n")


def _people(rng: np.random.Generator, n: int, end: str) -> list[str]:
    """Rows of Adult: who is older, and works more hours, earns more, most of the time."""
    ages, hours, luck = rng.integers(20, 70, n), rng.integers(10, 60, n), rng.normal(0, 20, n)
    return [
        f"{age}, Private, 1000, {('9th', 'Masters')[age % 2]}, 5, Divorced, Sales, Unmarried, White, "
        f"{('Male', 'Female')[hour % 2]}, 0, 0, {hour}, Cuba, {('<=50K', '>50K')[int(age + hour + chance > 80)]}{end}"
        for age, hour, chance in zip(ages, hours, luck, strict=True)
    ]


def _write_suite(root: Path, rng: np.random.Generator) -> None:
    """A problem of each kind, as `slicebench make` leaves it: two classes, one true slice."""
    entries = []
    for kind in KINDS:
        name = f"tiny-{kind}"
        for file, columns in _problem(rng).items():
            write_panel(root / ARTIFACTS / name / f"{file}.mk", columns)
        panels = (*PREDICTIONS.values(), "test_slices", "activations")
        artifacts = {panel: f"{ARTIFACTS}/{name}/{panel}" for panel in panels}
        entries.append(ProblemEntry(name, kind, "b", "tiny", 0.5, ("few",), 5, artifacts, ("a", "b")))
    write_index(root / INDEX, entries)


def _problem(rng: np.random.Generator, n: int = 40) -> dict[str, dict[str, np.ndarray]]:
    """The columns of each panel: a linear model, which is wrong in the true slice, a place of its own."""
    columns, activations = {}, {}
    few = np.arange(n) % 8 == 0
    for split, panel in PREDICTIONS.items():
        ids, labels = [f"{split}-{i:02d}" for i in range(n)], np.arange(n) % 2
        hidden = rng.normal(size=(n, 4)) + 4 * few[:, None] * (0, 0, 1, 1)
        hidden[:, 0] += 2 * (labels - 0.5) * np.where(few, -2, 2)
        chances = 1 / (1 + np.exp(hidden[:, 0] * ((1,), (-1,)))).T
        columns[panel] = prediction_columns(ids, labels, chances, None)
        activations |= dict(zip(ids, hidden.astype(np.float32), strict=True))
    columns["activations"] = {"id": np.array(list(activations), dtype=object), "act": np.array([*activations.values()])}
    columns["test_slices"] = {"id": columns["test_predictions"]["id"], "slices": few[:, None].astype(np.uint8)}
    return columns


def _write_models(folder: Path) -> None:
    """Networks with random weights, in the places and layouts of the published ones."""
    folder.mkdir()
    (folder / "minilm").mkdir()
    save_text_checkpoint(folder / "minilm", "BertModel", _words(folder.parent))
    import torch
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification, MobileNetV2ImageProcessor

    config = MobileNetV2Config(depth_multiplier=0.1, finegrained_output=False, image_size=32, num_labels=1000)
    network = MobileNetV2ForImageClassification(config)
    for name, parameter in network.named_parameters():
        if "normalization" not in name:  # smaller ones would make all pictures alike
            torch.nn.init.normal_(parameter, std=0.4)
    network.save_pretrained(folder / "mobilenet_v2_1.0_224")
    prepared = MobileNetV2ImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    prepared.save_pretrained(folder / "mobilenet_v2_1.0_224")


def _words(root: Path) -> list[str]:
    """For the tokenizer to know: those of the reviews and the questions, and the numbers that tell news apart."""
    text = CONTEXT + (root / "amazon_reviews/books/positive.review").read_text()
    known = {"the", "a", "of", "in", "is", "was", "up"}
    words = {word for word in text.lower().replace(".", " ").split() if word.isalpha()} - known
    return [*sorted(words), *map(str, range(200))]
