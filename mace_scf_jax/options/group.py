"""Options of one topic: typed fields with default, range and meaning."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from mace_scf_jax.options.error import ConfigurationError, problems_in_values

Group = TypeVar("Group", bound="OptionGroup")


@dataclasses.dataclass(frozen=True)
class DecidesWeights:
    """Marks an option (in its ``Annotated`` type) that differs from its group in this.

    Options that decide the weights must not change when a run is resumed.
    """

    does: bool


class OptionGroup(BaseModel):
    """Options of one topic; the first line of the docstring of a subclass is its heading.

    Raises:
        ConfigurationError: lists every unknown name, missing option and wrong value.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, str_strip_whitespace=True
    )

    decide_weights: ClassVar[bool] = True
    """Whether a resumed run must have the same values, unless an option is marked otherwise; False
    where the settings of the model, the data or the schedule, which are compared too, tell them."""

    called: ClassVar[str] = ""
    """What messages call a field, such as "option"; empty for the keys of a block."""

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            problems = problems_in_values(error, type(self).model_fields, kind=self.called)
            raise ConfigurationError(*problems) from None

    def problems(self) -> list[str]:
        """Return one sentence for everything about these options that does not go together."""
        return []

    @model_validator(mode="after")
    def _go_together(self) -> OptionGroup:
        problems = self.problems()
        if problems:
            raise ConfigurationError(*problems)
        return self

    def values_for(self, settings: type) -> dict[str, Any]:
        """Return the options that are fields of a settings dataclass too, by name."""
        names = {field.name for field in dataclasses.fields(settings)}
        return {name: getattr(self, name) for name in type(self).model_fields if name in names}

    @classmethod
    def of(cls: type[Group], options: OptionGroup) -> Group:
        """Take the options of this group out of a larger one."""
        return cls.model_construct(**{name: getattr(options, name) for name in cls.model_fields})

    @classmethod
    def deciding_weights(cls) -> tuple[str, ...]:
        """Name the options that must not change when a run is resumed."""
        return tuple(
            name
            for name, field in cls.model_fields.items()
            if next(
                (m.does for m in field.metadata if isinstance(m, DecidesWeights)),
                cls.decide_weights,
            )
        )


def read_value(kind: Any, value: Any) -> Any:
    """Read a single value as that of an option is read.

    Args:
        kind: its type.
        value: as it was written.

    Raises:
        ConfigurationError: it is no such value.
    """
    try:
        return TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        raise ConfigurationError(*problems_in_values(error, ())) from None


def block(name: str, group: type[OptionGroup]) -> BeforeValidator:
    """Return what reads a mapping as options, and says of all problems where they are.

    Args:
        name: of the option that is such a mapping.
        group: its members.
    """

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        try:
            return group(**value)
        except ConfigurationError as error:
            raise error.within(name) from None

    return BeforeValidator(read)
