"""Some fields of a recipe, to be laid over others: each is checked as in the whole recipe, none is required."""

import types
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, create_model
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticOmit, core_schema

from ablate.core.values import Frozen
from ablate.feature_losses import FeatureLoss
from ablate.losses import Loss


class Layer:
    """Marks a `dict[str, Any]` field as holding some fields of `recipe`, kept as they were written."""

    def __init__(self, recipe: type[Frozen]) -> None:
        self.recipe = recipe

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        as_written = core_schema.plain_serializer_function_ser_schema(dict, return_schema=core_schema.any_schema())
        return core_schema.no_info_wrap_validator_function(
            _checked, handler(partial(self.recipe)), serialization=as_written
        )


class OfARun:
    """Marks a field that only the record of a run says: none of a study file, nor of its JSON schema."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        raise PydanticOmit


def _checked(value: Any, check: core_schema.ValidatorFunctionWrapHandler) -> Any:
    check(value)
    return value


@cache
def partial(recipe: type[Frozen]) -> type[Frozen]:
    """-> the recipe with no field required, inside its nested values too."""
    fields: dict[str, Any] = {
        name: (_with(_partial_type(info.annotation), info.metadata), Field(None, description=info.description))
        for name, info in recipe.model_fields.items()
    }
    return create_model(f"Some{recipe.__name__}", __base__=Frozen, __doc__=recipe.__doc__, **fields)


def _with(annotation: Any, metadata: list[Any]) -> Any:
    return Annotated[(annotation, *metadata)] if metadata else annotation


def _partial_type(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        return Union[tuple(_partial_type(member) for member in get_args(annotation))]  # noqa: UP007 (built at run time)
    if (
        isinstance(annotation, type)
        and issubclass(annotation, Frozen)
        and not issubclass(annotation, Loss | FeatureLoss)
    ):
        return partial(annotation)
    return annotation
