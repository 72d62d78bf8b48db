"""The house holds its own rules: public names, sizes, one class name one thing."""

from __future__ import annotations

import ast
import importlib
from collections import Counter
from pathlib import Path

import pytest

import edge_agent

ROOT = Path(edge_agent.__file__).resolve().parent.parent
FOLDERS = ("edge_agent", "workshop", "export", "calibration", "training", "benchmarks")
MAX_LINES = 300
MAX_ROOT_MODULES = 8


def _modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("package", ["", ".bundle", ".config", ".messages", ".inspection"])
def test_what_a_package_names_as_public_is_there(package: str) -> None:
    module = importlib.import_module(f"edge_agent{package}")
    assert module.__all__
    assert all(getattr(module, name) is not None for name in module.__all__)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Agnet'"):
        getattr(edge_agent, "Agnet")  # noqa: B009 - mypy knows that it is not there


def test_no_module_is_longer_than_the_limit() -> None:
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for folder in FOLDERS
        for path in _modules(folder)
    }
    assert {path: count for path, count in lines.items() if count > MAX_LINES} == {}


def test_the_root_of_the_agent_holds_few_modules() -> None:
    names = [path.name for path in (ROOT / "edge_agent").glob("*.py") if path.name != "__init__.py"]
    assert len(names) <= MAX_ROOT_MODULES, names


def test_a_class_name_is_defined_once_within_the_agent() -> None:
    names = Counter(
        node.name
        for path in _modules("edge_agent")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []
