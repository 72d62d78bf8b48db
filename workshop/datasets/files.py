"""Common parts of the data sets on disk: a folder of images, and tables beside it."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_agent.frame import Image
from edge_agent.image_files import SUFFIXES, read_image
from workshop.datasets.base import Sample
from workshop.errors import WorkshopError

_MAX_FIELD_CHARS = 16 << 20
_MAX_TABLE_BYTES = 2 << 30
_DIGEST_DIGITS = 16


class ImageFiles:
    """Images of one folder, named by their files; only the size in px is kept of each."""

    def __init__(
        self, name: str, images: Path, samples: Sequence[Sample], class_names: tuple[str, ...]
    ) -> None:
        self.name, self.class_names = name, class_names
        self.samples = tuple(samples)
        self._images = images
        self._sizes: dict[int, tuple[int, int]] = {}

    def path(self, index: int) -> Path:
        """Return the path of the image file."""
        return self._images / self.samples[index].name

    def image(self, index: int) -> Image:
        """Return the image: uint8 (lines, pixels) or RGB (lines, pixels, 3)."""
        path = self.path(index)
        try:
            image = read_image(path)
        except ValueError as error:
            raise WorkshopError(f"{path}: {error}; replace the file or take it out") from None
        self._sizes[index] = (image.shape[0], image.shape[1])
        return image

    def size(self, index: int) -> tuple[int, int]:
        """Return the lines and pixels of the image."""
        if index not in self._sizes:
            self.image(index)
        return self._sizes[index]

    def digest(self, index: int) -> str:
        """Return the first 16 hexadecimal digits of the sha256 of the image file."""
        path = self.path(index)
        try:
            return hashlib.sha256(path.read_bytes()).hexdigest()[:_DIGEST_DIGITS]
        except OSError as error:
            raise WorkshopError(f"{path}: cannot be read: {error.strerror}") from None


def list_images(folder: Path) -> tuple[str, ...]:
    """Return the names of a folder's image files, sorted; raise WorkshopError if there is none."""
    try:
        names = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise WorkshopError(f"{folder}: {error.strerror}; give a folder of images") from None
    if not names:
        raise WorkshopError(f"{folder}: no images; put some in ({', '.join(sorted(SUFFIXES))})")
    return tuple(names)


def check_name(name: str, where: str) -> str:
    """Return a file name without a folder unchanged; raise WorkshopError for any other."""
    # A path in a list must not lead out of the data folder.
    if name in ("", ".", "..") or any(c in "/\\" or not c.isprintable() for c in name):
        raise WorkshopError(f"{where}: {name!r} is not a plain file name; take the path out")
    return name


def check_class_names(names: tuple[str, ...] | None) -> None:
    """Raise WorkshopError for a class name that is empty or occurs twice."""
    for name in names or ():
        if not name or (names or ()).count(name) > 1:
            raise WorkshopError(f"class_names: {name!r} is empty or there twice; name each once")


def class_id_of(text: str, where: str) -> int:
    """Return the class number, 0 for defect-free; raise WorkshopError unless it is 0 to 255."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 255:
        raise WorkshopError(f"{where}: class id {text!r} is not a number from 0 to 255")
    return number


def outside(class_id: int, names: tuple[str, ...], where: str) -> WorkshopError:
    """Return the error for a class beyond the list of names."""
    return WorkshopError(f"{where}: class id {class_id} not in the list ({', '.join(names)})")


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the rows of a CSV file: (file and line, for error messages; the columns asked for).

    Column names are compared without regard to case. Raises WorkshopError.
    """
    # A field of run lengths exceeds csv's limit of 128 KiB if a mask is ragged.
    csv.field_size_limit(_MAX_FIELD_CHARS)
    try:
        if path.stat().st_size > _MAX_TABLE_BYTES:
            raise WorkshopError(f"{path}: larger than {_MAX_TABLE_BYTES} bytes")
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            head = [name.strip().lower() for name in next(rows, [])]
            missing = [name for name in columns if name.lower() not in head]
            if missing:
                raise WorkshopError(
                    f"{path}: no column {', '.join(missing)}; the first line must name "
                    f"{', '.join(columns)}"
                )
            at = [head.index(name.lower()) for name in columns]
            for row in rows:
                where = f"{path} line {rows.line_num}"
                if not row:
                    continue
                if len(row) <= max(at):
                    raise WorkshopError(f"{where}: {len(row)} fields, {len(head)} are named above")
                yield where, tuple(row[i].strip() for i in at)
    except OSError as error:
        raise WorkshopError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise WorkshopError(f"{path}: not UTF-8; save the table anew as CSV in UTF-8") from None
    except csv.Error as error:
        raise WorkshopError(f"{path}: {error}") from None
