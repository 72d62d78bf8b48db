"""Field types of the configuration, with their limits."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")]
_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
# An upper limit, because TOML permits infinity.
_Positive = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
CommandName = Literal["status", "picture", "set_coil", "start", "stop", "stage"]
_Topic = Annotated[str, msgspec.Meta(pattern=r"^[^+#\x00/][^+#\x00]{0,199}\Z")]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_SizeMm = Annotated[float, msgspec.Meta(gt=0, le=1000)]
_Count = Annotated[int, msgspec.Meta(ge=1)]
_Provider = Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9]+ExecutionProvider|openvino)\Z")]
_Features = dict[str, bool | int | float | str]


class ConfigPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the configuration's tables: frozen, and an unknown key is an error."""
