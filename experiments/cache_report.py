"""Size of the cache by stage, and getting rid of what is old: `slicebench cache`."""

from __future__ import annotations

import json
import os
from pathlib import Path

from rich.table import Table

from experiments.cache import prune, sizes
from experiments.console import printer, say


def cache_root() -> Path:
    """Where the cache lies unless a run's `paths.cache` says otherwise."""
    return Path(os.environ.get("SLICEBENCH_CACHE") or "~/.cache/slicebench").expanduser()


def show_cache(days: float | None, as_json: bool) -> None:
    """Print entries and bytes of each stage, after removing what is older than so many days."""
    root, console = cache_root(), printer()
    if days is not None:
        removed, freed = prune(root, days)
        say(f"removed {removed} {'entry' if removed == 1 else 'entries'}, {freed / 1e6:.1f} MB")
    stages = sizes(root)
    if as_json:
        print(json.dumps({name: {"entries": n, "bytes": b} for name, (n, b) in stages.items()}, indent=2))
        return
    table = Table("stage", "entries", "size", title=str(root))
    for name, (entries, size) in stages.items():
        table.add_row(name, str(entries), f"{size / 1e6:.1f} MB")
    console.print(table)
