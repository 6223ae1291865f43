"""Write problems in the layout of dcbench's, so that one reader reads both; nothing is pickled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from experiments.files import sync_file, write_text
from experiments.reading.dcbench import PATH, ProblemEntry
from experiments.reading.panels import ID, META

CONTAINER = "dcbench.tasks.slice_discovery.problem.SliceDiscoveryProblem"
PANEL = "dcbench.common.artifact.DataPanelArtifact"


def write_panel(folder: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write a `.mk` folder in meerkat's layout of blocks, one block a column.

    Parameters
    ----------
    folder : Path
        Made where it does not exist.
    columns : mapping of str to array, shape (n,) or (n, d)
        Strings or numbers; `id` among them.
    """
    places = {}
    for number, (name, values) in enumerate(columns.items()):
        block = folder / "mgr" / "blocks" / str(number)
        block.mkdir(parents=True)
        places[name] = {"block": {"block_dir": f"blocks/{number}", "block_index": _write_block(block, name, values)}}
    n_rows = len(columns[ID])
    write_text(folder / META, yaml.safe_dump({"column_dtypes": dict.fromkeys(columns, ""), "len": n_rows}))
    write_text(folder / "mgr" / META, yaml.safe_dump({"_column_order": list(columns), "columns": places}))


def _write_block(block: Path, name: str, values: np.ndarray) -> Any:
    """Write the values; what the index of the block says of them."""
    if values.dtype.kind in "OUT":
        pd.DataFrame({name: values.astype(str)}).to_feather(block / "data.feather")
        sync_file(block / "data.feather")
        return name
    np.save(block / "data.npy", values if values.ndim == 2 else values[:, None], allow_pickle=False)
    sync_file(block / "data.npy")
    return {"start": 0, "stop": values.shape[1], "step": 1} if values.ndim == 2 else 0


def prediction_columns(
    ids: Sequence[str], labels: np.ndarray, probabilities: np.ndarray, paths: Sequence[str] | None
) -> dict[str, np.ndarray]:
    """The columns of a panel of predictions: id, target (n,), probs (n, c), and path where there are files."""
    columns = {ID: np.array(ids, dtype=object), "target": labels, "probs": probabilities}
    return columns | ({} if paths is None else {PATH: np.array(paths, dtype=object)})


class _Tagged(dict[str, Any]):
    """A mapping with a tag of dcbench's."""

    tag: str


class _Container(_Tagged):
    tag = "!ArtifactContainer"


class _Artifact(_Tagged):
    tag = "!Artifact"


class _Class(str):
    """The name of a class of dcbench's; ours to write, nobody's to import."""


class _Dumper(yaml.SafeDumper):
    """Knows dcbench's tags."""


_Dumper.add_multi_representer(_Tagged, lambda dumper, value: dumper.represent_mapping(value.tag, dict(value)))
_Dumper.add_representer(
    _Class, lambda dumper, name: dumper.represent_scalar(f"tag:yaml.org,2002:python/name:{name}", "")
)


def write_index(path: Path, entries: Sequence[ProblemEntry]) -> None:
    """Write `problems.yaml`; the ids of artifacts are paths below the root, without their ending."""
    text = yaml.dump([_container(entry) for entry in entries], Dumper=_Dumper, sort_keys=False)
    write_text(path, text)


def _container(entry: ProblemEntry) -> _Container:
    attributes = {
        "alpha": entry.alpha,
        "dataset": entry.dataset,
        "n_pred_slices": entry.n_pred_slices,
        "slice_category": entry.kind,
        "slice_names": list(entry.slice_names),
        "target_name": entry.target_name,
    }
    if entry.class_names is not None:
        attributes["class_names"] = list(entry.class_names)
    artifacts = {name: _Artifact(artifact_id=i, **{"class": _Class(PANEL)}) for name, i in entry.artifacts.items()}
    return _Container(
        {
            "artifacts": artifacts,
            "attributes": attributes,
            "class": _Class(CONTAINER),
            "container_id": entry.container_id,
        }
    )
