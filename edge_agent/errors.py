"""Error families by the person who must act. A message is one line: "field: value; fix"."""

from typing import ClassVar


class EdgeError(Exception):
    """Base of every error that this product raises on purpose.

    A command ends with exit code 2 if it is raised before the start, with 1 afterwards.
    """

    exit_code: ClassVar[int] = 2


class ConfigError(EdgeError):
    """Error that the author of the configuration or command line must fix."""


class BundleError(EdgeError):
    """Error that the person who exported or copied the bundle must fix."""


class CameraError(EdgeError):
    """Error that the person at the camera must fix."""


class BrokerError(EdgeError):
    """Error that the operator of the MQTT broker must fix."""


class SpoolError(EdgeError):
    """Error that the owner of the disk must fix."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type's name if it has no text.

    The lines below it may be a stack trace or a long explanation.
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip()


def one_line(error: BaseException) -> str:
    """Return an error's whole text on one line, or its type's name if it has no text."""
    return " ".join(str(error).split()) or type(error).__name__
