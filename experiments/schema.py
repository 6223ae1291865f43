"""Names, types and ranges of settings, checked against the signature of what they are settings of."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from methods.contract import InvalidInput
from methods.errors import unknown_name
from methods.ranges import check_ranges

WORDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", None: "null"}


def construct(target: Any, values: Mapping[str, Any], path: str) -> Any:
    """An instance of `target` with these values, once they are found to fit.

    Parameters
    ----------
    target : class or function
        Its parameters' annotations are the types; ranges stand in the metadata of dataclass fields.
    values : mapping
        Plain values, as they stand in a config.
    path : str
        Where they stand in the config, for the message: "method".

    Raises
    ------
    InvalidInput
        Naming the setting, its value and what is allowed; for an unknown name, the nearest ones.
    """
    parameters = parameters_of(target)
    if not isinstance(values, Mapping):
        names = ", ".join(f"{path}.{name}" for name in parameters)
        raise InvalidInput(f"{path} is {values!r}, expected its settings: {names}")
    for name in () if takes_anything(target) else values:
        if name not in parameters:
            raise InvalidInput(unknown_name(f"{path} has no setting {name!r}", name, parameters))
    for name, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in values:
            raise InvalidInput(f"{path}.{name} is missing, expected {words(parameter.annotation)}")
    annotations = {name: parameters[name].annotation if name in parameters else Any for name in values}
    typed = {name: _typed(annotations[name], value, f"{path}.{name}") for name, value in values.items()}
    try:
        instance = target(**typed)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be made by {target.__name__}: {error}") from None
    if is_dataclass(instance):
        _check_ranges(instance, path)
    return instance


def parameters_of(target: Any) -> dict[str, inspect.Parameter]:
    """The parameters that `target` takes by name, their annotations resolved."""
    hints = typing.get_type_hints(target if is_dataclass(target) else target.__init__)
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    signature = inspect.signature(target).parameters
    return {n: p.replace(annotation=hints.get(n, Any)) for n, p in signature.items() if p.kind in kinds}


def takes_anything(target: Any) -> bool:
    """Whether `target` takes settings of any name (`**kwargs`)."""
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(target).parameters.values())


def words(annotation: Any) -> str:
    """A type in words.

    Examples
    --------
    >>> from typing import Literal
    >>> words(tuple[int, ...] | None), words(Literal["full", "diag"])
    ('a list (each a whole number) or null', 'full or diag')
    """
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return " or ".join(str(argument) for argument in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(words(None if argument is type(None) else argument) for argument in arguments)
    if origin in (list, tuple):
        return f"a list (each {words(arguments[0])})"
    if is_dataclass(annotation):
        return f"settings of {getattr(annotation, '__name__', annotation)}"
    return WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _typed(annotation: Any, value: Any, path: str) -> Any:
    settings = _settings_in(annotation)
    if settings is not None and value is not None:
        if typing.get_origin(annotation) is tuple and isinstance(value, list | tuple):
            return tuple(_typed(settings, one, f"{path}.{at}") for at, one in enumerate(value))
        if not isinstance(value, Mapping) or typing.get_origin(annotation) is tuple:
            raise InvalidInput(f"{path} is {value!r}, expected {words(annotation)}")
        return construct(settings, value, path)
    if isinstance(value, bool) and not {bool, Any} & {annotation, *typing.get_args(annotation)}:
        raise InvalidInput(f"{path} is {str(value).lower()}, expected {words(annotation)}")  # else it would count as 1
    try:
        return _adapter(annotation).validate_python(value)
    except ValidationError:
        raise InvalidInput(f"{path} is {value!r}, expected {words(annotation)}") from None


def _settings_in(annotation: Any) -> type | None:
    """The class of settings that an annotation asks for: itself, one of several, or one of a list of them."""
    found = (annotation, *typing.get_args(annotation))
    return next((one for one in found if is_dataclass(one) and isinstance(one, type)), None)


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticSchemaGenerationError:
        return TypeAdapter(Any)


def _check_ranges(instance: Any, path: str) -> None:
    try:
        check_ranges(instance)
    except InvalidInput as error:
        raise InvalidInput(f"{path}.{error}") from None
