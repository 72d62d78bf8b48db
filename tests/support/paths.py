"""Places that do not depend on where a test file lies."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""

SUPPORT = Path(__file__).resolve().parent
"""Here, where programs and sources that tests start or build lie."""
