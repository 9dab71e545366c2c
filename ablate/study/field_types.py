"""Types that several settings of a study share."""

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from ablate.core.values import Int

Dtype: TypeAlias = Literal["bfloat16", "float16", "float32", "float64"]

BYTES: Final = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}
"""A number of a dtype."""

Positive: TypeAlias = Annotated[Int, Field(gt=0)]


class Disagreement(ValueError):
    """Values that are each right and together wrong: told where the uppermost of these fields is said."""

    def __init__(self, message: str, *fields: str) -> None:
        super().__init__(message)
        self.fields = tuple(tuple(field.split(".")) for field in fields)


class OrNone:
    """Lets a field that may be missing be written `none`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(without_none_word, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [handler(schema), {"const": "none"}]}


def without_none_word(value: Any) -> Any:
    """-> None for the word `none`, any other value as it is."""
    return None if value == "none" else value
