"""What all sections of the input file have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
Repeats = Annotated[list[Count], Field(min_length=3, max_length=3)]
CodeLabel = Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")]


class Section(BaseModel):
    """A block of keys: unknown keys, wrong types, NaN and infinity are refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        serialize_by_alias=True,
    )
