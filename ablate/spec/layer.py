"""A layer: some fields of a recipe, each checked as the recipe checks it, to be laid over the layers before."""

import types
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import GetCoreSchemaHandler, create_model
from pydantic_core import CoreSchema, core_schema

from ablate.model import Frozen


class Layer:
    """Marks a `dict[str, Any]` field as holding some fields of `recipe`, kept as they were written."""

    def __init__(self, recipe: type[Frozen]) -> None:
        self.recipe = recipe

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(_checked, handler(partial(self.recipe)))


def _checked(value: Any, check: core_schema.ValidatorFunctionWrapHandler) -> Any:
    check(value)
    return value


@cache
def partial(recipe: type[Frozen]) -> type[Frozen]:
    """-> the recipe with no field required, inside its nested values too."""
    fields: dict[str, Any] = {
        name: (Annotated[(_partial_type(info.annotation), *info.metadata)] if info.metadata else info.annotation, None)
        for name, info in recipe.model_fields.items()
    }
    return create_model(f"Some{recipe.__name__}", __base__=Frozen, __doc__=recipe.__doc__, **fields)


def _partial_type(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        return Union[tuple(_partial_type(member) for member in get_args(annotation))]  # noqa: UP007 (built at run time)
    if isinstance(annotation, type) and issubclass(annotation, Frozen) and annotation.__subclasses__() == []:
        return partial(annotation)
    return annotation


def laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """-> `below` with `above` on top: mappings are merged, all else replaced.

    A mapping that names another variant (`{name: jsd}` over `{name: top_k, k: 8}`) replaces the one below whole.
    """
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        is_merge = isinstance(under, dict) and isinstance(value, dict) and value.get("name", under.get("name")) == under.get("name")
        merged[name] = laid_over(under, value) if is_merge else value  # type: ignore[arg-type]
    return merged
