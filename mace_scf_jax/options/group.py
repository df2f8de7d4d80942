"""Options of one topic: typed fields with default, range and meaning."""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import BaseModel, ConfigDict


class OptionGroup(BaseModel):
    """Options of one topic; the first line of the docstring of a subclass is its heading."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, str_strip_whitespace=True
    )

    def problems(self) -> list[str]:
        """Return one sentence for everything about these options that does not go together."""
        return []

    def values_for(self, settings: type) -> dict[str, Any]:
        """Return the options that are fields of a settings dataclass too, by name."""
        names = {field.name for field in dataclasses.fields(settings)}
        return {name: getattr(self, name) for name in type(self).model_fields if name in names}
