"""Hooks only: which tier a test is in. Fixtures are in tests/support."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.support.paths import ROOT

pytest_plugins = [
    "tests.support.fixtures",
    "tests.support.camera_fixtures",
    "tests.support.training_fixtures",
    "tests.support.chromium_fixtures",
    "tests.support.unit_guard",
]

# An example may be late on a busy machine though the code is right.
settings.register_profile("linegate", deadline=None)
# For `make test-fast`: the same examples each time, so that a red run can be done again.
settings.register_profile("derandomised", deadline=None, derandomize=True)
settings.load_profile("linegate")

_TESTS = ROOT / "tests"
_TIERS = ("unit", "integration", "workshop", "system", "faults")


# First, because `-m` decides by the marks that are there.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its tier, which is the folder it lies in."""
    for item in items:
        tier = item.path.relative_to(_TESTS).parts[0]
        if tier not in _TIERS:
            raise pytest.UsageError(f"{item.nodeid}: in no tier; see tests/README.md")
        item.add_marker(tier)
