"""Turn content into pages."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from experiments.report.graphics import Dot
from experiments.report.words import name_of, written

MARK = '<meta name="generator" content="slicebench">'
STYLE, SCRIPT = (Path(__file__).parent / "templates" / name for name in ("style.css", "sort.js"))


def render(template: str, **values: Any) -> str:
    """A page from this template."""
    return _environment().get_template(template).render(**values)


@lru_cache(maxsize=1)  # it keeps the templates that are compiled
def _environment() -> Environment:
    """Everything that a template writes is escaped, and free of what cannot be written."""
    style, script = STYLE.read_text(), SCRIPT.read_text()
    environment = Environment(
        loader=PackageLoader("experiments.report"),
        autoescape=True,
        finalize=written,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "style": style,
        "script": script,
        "policy": policy({"style-src": style, "script-src": script}),
        "mark": MARK,
        "dot": Dot.of,
    }
    environment.filters |= {"name": name_of, "percent": _percent, "number": _number, "mean": _mean}
    return environment


def policy(ours: Mapping[str, str]) -> str:
    """The Content-Security-Policy: pictures, and no style and no script but ours.

    Parameters
    ----------
    ours : mapping from directive to the content of the element that it allows
    """
    allowed = "; ".join(f"{directive} '{_digest(content)}'" for directive, content in ours.items())
    return f"default-src 'none'; img-src 'self' data: file:; {allowed}; base-uri 'none'; form-action 'none'"


def _digest(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


def _percent(share: float) -> str:
    return "–" if share != share else f"{100 * share:z.0f}%"  # nan is not equal to itself


def _mean(value: float) -> str:
    """Years keep all their digits."""
    return f"{value:.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def _number(value: float, digits: int = 2) -> str:
    return "–" if value != value else f"{value:z,.{digits}f}"
