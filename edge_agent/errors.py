"""Error families, named by who must act. Each message is one line: field, value, fix."""

from typing import ClassVar


class EdgeError(Exception):
    """Base of every error this product raises on purpose.

    Raised before the start it ends a command with exit code 2, afterwards with 1.
    """

    exit_code: ClassVar[int] = 2


class ConfigError(EdgeError):
    """The person who wrote the configuration or the command line must act."""


class BundleError(EdgeError):
    """The person who exported or copied the bundle must act."""


class CameraError(EdgeError):
    """The person at the camera must act."""


class BrokerError(EdgeError):
    """The person who runs the MQTT broker must act."""


class SpoolError(EdgeError):
    """The person who owns the disk must act."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, where the lines below it are a trace or a page.

    An error without a text gives its type's name.
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip()


def one_line(error: BaseException) -> str:
    """Return an error's whole text on one line, or its type's name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
