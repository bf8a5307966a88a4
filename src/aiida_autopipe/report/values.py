"""What all parts of the report's model are made of: plain validated values and named nodes."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _plain_list(value: Any) -> Any:
    """Accept numpy arrays of any shape as flat lists; None in a list means "not known" (NaN)."""
    if hasattr(value, "reshape"):
        value = value.reshape(-1).tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [float("nan") if item is None else item for item in value]
    return value


def require_same_length(model: BaseModel, names: tuple[str, ...]) -> None:
    """Raise ValueError where arrays that belong together differ in length."""
    lengths = {name: len(getattr(model, name)) for name in names}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"arrays that belong together differ in length: {lengths}")


FloatList = Annotated[list[float], BeforeValidator(_plain_list)]
# Lower-case UUIDs only: the value ends up in a shell command that readers are invited to copy.
Uuid = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


# "strings" lets NaN and infinity survive a JSON round trip of the model itself.
PLAIN = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")
"""Configuration of all parts of the report's model."""


class NodeRef(BaseModel):
    """One node of the provenance graph."""

    model_config = PLAIN

    uuid: Uuid
    pk: int
    label: str = ""
    kind: str
    """Node type as readers know it, e.g. `WorkChain`, `DatasetData`."""
