"""Results in which everything that can be written by somebody else is written by an enemy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from experiments.analysing import COLUMNS
from experiments.files import write_json, write_parquet
from experiments.loaders.image_folder import ImageFolder
from tests.experiments.run_folders import write_run

IMAGE = '"><img src=x onerror=window.hacked=1>'
SCRIPT = "<script>window.hacked=1</script>"
CLOSING = "</style></script></title></textarea>-->"
TEMPLATE = "{{ 7*7 }}{% raw %}${7*7}"
ADDRESS = "javascript:window.hacked=1"
HANDLER = "' onmouseover='window.hacked=1' x='"
ENTITY = "&lt;b&gt;&#x3c;script&#x3e;&amp;&nbsp;"
BACKWARDS = "left \u202eright to left without an end"
ARABIC = "\u0627\u0644\u0641\u064a\u0644\u0645 \u0633\u064a\u0626 \u2067abc"
CONTROLS = "a\x00b\x07c\x1b[31md\x7fe\x9ff\ufffeg"
PILE = f"Z{chr(0x302) * 2000}algo"
EMOJI = "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308 \U0001f44d\U0001f3fd"
LONG = "spaceless" * 11_000
HALF = "half \ud83d of a letter"  # no file but json can hold it
SHORT = (IMAGE, SCRIPT, CLOSING, TEMPLATE, ADDRESS, HANDLER, ENTITY, BACKWARDS, ARABIC, CONTROLS, PILE, EMOJI)
NAMES = tuple(text.replace("\x00", "") for text in SHORT)  # no name of an array can hold it
ALL = (*SHORT, LONG, "", " \n\t ")


def values(n: int, texts: tuple[str, ...] = ALL) -> list[str]:
    """So many of these texts, over and over."""
    return [text for text, _ in zip(cycle(texts), range(n))]


def write_hostile_runs(root: Path) -> None:
    """Runs of reviews, of pictures and of a table with several problems, and an experiment that was analysed."""
    _write_reviews(root)
    _write_pictures(root)
    _write_table(root)
    _write_experiment(root)


def _ids(n: int) -> list[str]:
    return sorted(f"{text[:100]} {number:02d}" for number, text in enumerate(values(n)))


def _columns(n: int) -> dict[str, Any]:
    """What examples of any kind have."""
    generator = np.random.default_rng(n)
    return {
        "id": _ids(n),
        "label": values(n, (IMAGE, BACKWARDS, LONG[:3000])),
        "prediction": values(n, (SCRIPT, BACKWARDS)),
        "correct": [row % 3 == 1 for row in range(n)],
        "loss": generator.exponential(size=n),
        f"attribute_{IMAGE}": values(n, SHORT),
        f"attribute_{LONG[:500]}": ["", *values(n - 1, (LONG[:500], PILE))],
        f"attribute_{BACKWARDS}": generator.normal(123456.0, 1e4, size=n),
        "map_x": generator.normal(size=n),
        "map_y": generator.normal(size=n),
    }


def _slices(n: int) -> np.ndarray:
    """The first half, a third, one example, and nobody: (n, 4)."""
    rows = np.arange(n)
    return np.stack([rows < n // 2, rows % 3 == 0, rows == n - 1, rows < 0], axis=1)


def _names() -> dict[str, Any]:
    return {
        "diagnostics": [{"warnings": [IMAGE, HALF]}, {"warnings": [BACKWARDS]}, {}, {}],
        "model": f"model {SCRIPT}",
        "embedding": f"embedding {BACKWARDS}",
        "variant": f"variant {IMAGE}",
        "definition": {
            "model": {"_target_": "experiments.models.precomputed.Precomputed"},
            "method": {"_target_": SCRIPT, IMAGE: LONG[:2000], "list": [SCRIPT, BACKWARDS]},
        },
        "content": {
            "dataset_notes": [*SHORT, HALF, LONG[:2000]],
            "embedding": {"test": {"notes": [SCRIPT]}},
            "scale": {"name": "here", "stand_ins": [BACKWARDS, IMAGE]},
            "device": IMAGE,
            "threads": SCRIPT,
            "git": {"commit": BACKWARDS, "dirty": True},
        },
        "seconds": {IMAGE: 1.0},
    }


def _write_reviews(root: Path) -> None:
    n = 45
    texts = [f"{text} dreadful" for text in values(n)]
    table = {**_columns(n), "text": [*texts[: n // 2], *values(n - n // 2)]}
    write_run(root, table, _slices(n), method=f"spotlight {IMAGE}", dataset="reviews", **_names())


def _write_pictures(root: Path) -> None:
    folder = root / "images"
    for split, number in (("test", 8), ("train", 2)):
        for index, name in enumerate((IMAGE, BACKWARDS, HANDLER, LONG[:200])):
            of_class = folder / split / f"class {IMAGE}{index}"
            of_class.mkdir(parents=True, exist_ok=True)
            for copy in range(number):
                Image.effect_noise((20 + 90 * index, 30), 60 + copy).save(of_class / f"{name}{copy}.png")
    (folder / "test" / f"class {IMAGE}0" / f"{IMAGE}0.png").write_bytes(b"no picture")
    settings = {"_target_": "experiments.loaders.image_folder.ImageFolder", "path": str(folder)}
    dataset = ImageFolder(str(folder)).load(root, seed=0)
    ids = list(dataset.split("test").example_ids)
    trained = list(dataset.split("train").example_ids)
    names = _names()
    names["definition"] |= {"dataset": settings, "fingerprint": dataset.fingerprint}
    names["definition"] |= {"evaluation": {"opponents_from": "train"}}
    both = [{**_columns(len(ids)), "id": ids, "path": ids, "split": split} for split in ("test", "validation")]
    both[1]["id"] = [f"validation {i}" for i in ids]
    named = {"problem": "all", "slice": 0, "rank": 1, "example_id": trained[0]}
    rows = [{**named, "sign": sign, "influence": 0.5 * sign} for sign in (-1, 1)]
    names["definition"]["evaluation"] |= {"fit_split": "validation"}
    write_run(
        root,
        pd.concat(map(pd.DataFrame, both), ignore_index=True),
        _slices(len(ids)),
        method="spotlight",
        dataset=f"pictures {IMAGE}",
        fitted=_slices(len(ids)),
        truth=_slices(len(ids))[:, :2],
        opponents=pd.DataFrame(rows).to_dict("list"),
        **names,
    )


def _write_table(root: Path) -> None:
    n = 30
    tables = {f"{name} {number}": _slices(n) for number, name in enumerate(NAMES)} | {LONG[:1000]: _slices(n)}
    truth = {name: np.roll(_slices(n)[:, :1], number, axis=0) for number, name in enumerate(tables)}
    refused = {f"refused {text}": text for text in (*NAMES, LONG[:3000])}
    write_run(root, _columns(n), tables, method="gmm", dataset="table", truth=truth, refused=refused, **_names())


def _write_experiment(root: Path) -> None:
    """An analysed experiment: its pictures have captions, and its summary notes, of the same kind."""
    about = {"experiment": f"own/{IMAGE}{BACKWARDS}", "scale": SCRIPT, "stand_ins": [IMAGE], "notes": [*SHORT, HALF]}
    write_json(root / "experiment.json", about)
    pictures = [{"file": name, "caption": caption, "shows": None} for name, caption in _captions()]
    write_json(root / "analysis" / "summary.json", {**about, "pictures": pictures})
    write_parquet(root / "analysis" / "numbers.parquet", pd.DataFrame(columns=list(COLUMNS)))
    for name, _ in _captions():
        Image.new("RGB", (1500, 300), "grey").save(root / "analysis" / f"{name}.png")


def _captions() -> Iterator[tuple[str, str]]:
    yield IMAGE, f"{SCRIPT}{BACKWARDS}"
    yield "second", LONG[:2000]


def published(_: Any) -> list[Mapping[str, Any]]:
    """Rows of a comparison, instead of `experiments.published.rows_of`."""
    words = {"measure": IMAGE, "source": SCRIPT, "place": BACKWARDS, "measured_on": LONG[:500], "note": SCRIPT}
    numbers = {"published": 1.0, "measured": 2.0, "low": None, "high": None}
    return [{**words, **numbers}, {**words, **numbers, "measure": PILE, "note": None}]
