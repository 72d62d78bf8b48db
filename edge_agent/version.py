"""Version of the installed distribution."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("linegate")
except PackageNotFoundError:  # run from a source folder that is not installed
    VERSION = "0+unknown"
