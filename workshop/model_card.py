"""Card in a trained model: input, meaning of the maps, images seen in training.

It is one more member of the `.keras` archive, so it is never lost when the file is copied. Keras
ignores it; saving the model again with Keras drops it.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

import msgspec

from edge_agent.bundle.manifest import InputSpec
from workshop.errors import WorkshopError

_MEMBER = "linegate.json"
_MAX_BYTES = 16 << 20


class ModelCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Card of a trained model.

    `seen` are the digests (see `DataSet.digest`) of the images of training and validation, of this
    model and of its backbone: no figure may be reported on those.
    """

    schema_version: Literal[1] = 1
    stage: Literal["gate", "segmenter", "backbone"]
    input: InputSpec
    class_names: tuple[str, ...]
    seen: tuple[str, ...] = ()


def write(model: Path, card: ModelCard) -> None:
    """Add the card to a `.keras` file that has none."""
    # A fixed date: the same training gives the same bytes.
    entry = zipfile.ZipInfo(_MEMBER, (1980, 1, 1, 0, 0, 0))
    with zipfile.ZipFile(model, "a") as archive:
        archive.writestr(entry, msgspec.json.encode(card))


def read(model: Path) -> ModelCard | None:
    """Return the card of a `.keras` file or None; raise WorkshopError if the card is unusable."""
    try:
        with zipfile.ZipFile(model) as archive:
            if _MEMBER not in archive.namelist():
                return None
            if archive.getinfo(_MEMBER).file_size > _MAX_BYTES:
                raise WorkshopError(f"{model}: {_MEMBER} is larger than {_MAX_BYTES} bytes")
            return msgspec.json.decode(archive.read(_MEMBER), type=ModelCard)
    except (OSError, zipfile.BadZipFile) as error:
        raise WorkshopError(f"{model}: {error}; give a .keras file") from None
    except msgspec.DecodeError as error:
        raise WorkshopError(f"{model}: {_MEMBER}: {error}; train it again") from None
