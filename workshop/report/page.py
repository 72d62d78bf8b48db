"""Report as one HTML file for offline use, phones and dark mode: no scripts, all escaped.

`page.html.j2` is the frame of every report, `page_macros.html.j2` is shared by their templates.
"""

from __future__ import annotations

import base64
from importlib import resources

import jinja2

from workshop.statistics import Estimate, Share

_SHARED = ("page.html.j2", "page_macros.html.j2")


def render(package: str, template: str, **values: object) -> str:
    """Render a template in `package` that extends `page.html.j2`; return the page."""
    sources = {name: _text("workshop.report", name) for name in _SHARED}
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({**sources, template: _text(package, template)}),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"value": value_text, "bounds": bounds_text, "url": svg_url}
    return environment.get_template(template).render(**values)


def value_text(one: Share | Estimate) -> str:
    """Return the value as text: 97.1 % for a share, 0.842 for an estimate."""
    if one.value is None:
        return "none to judge"
    return f"{100 * one.value:.1f} %" if isinstance(one, Share) else f"{one.value:.3f}"


def bounds_text(one: Share | Estimate) -> str:
    """Return the interval as text: 33 of 34; 84.7 to 99.9 %, or 0.801 to 0.880."""
    if one.low is None or one.high is None:
        return ""
    if isinstance(one, Share):
        return f"{one.k} of {one.n}; {100 * one.low:.1f} to {100 * one.high:.1f} %"
    return f"{one.low:.3f} to {one.high:.3f}"


def svg_url(data: bytes) -> str:
    """Return an SVG file as a data URL."""
    return "data:image/svg+xml;base64," + base64.b64encode(data).decode("ascii")


def _text(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text("utf-8")
