"""Links of the documents, as the repository has them and as the site needs them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
_SPEC = importlib.util.spec_from_file_location("docs_site", ROOT / "scripts" / "docs_site.py")
assert _SPEC
assert _SPEC.loader
docs_site = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(docs_site)


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("index.md", "[a](docs/figures.md#latency)", "[a](figures.md#latency)"),
        ("index.md", "[a](docs/decisions)", "[a](decisions/README.md)"),
        ("architecture.md", "[a](../README.md#promises)", "[a](index.md#promises)"),
        ("decisions/README.md", "[a](../../CONTRIBUTING.md)", "[a](../contributing.md)"),
        ("decisions/README.md", "[a](template.md)", "[a](template.md)"),
        ("ml-engineer.md", "[a](../training/reference/README.md)", "a"),
        ("security.md", "[a](#keys)", "[a](#keys)"),
        ("changelog.md", "[a](https://semver.org/)", "[a](https://semver.org/)"),
        ("integrator.md", "[a](missing.md)", "[a](missing.md)"),
    ],
)
def test_links(page: str, link: str, expected: str) -> None:
    assert docs_site.with_site_links(link, page) == expected
