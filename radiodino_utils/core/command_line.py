"""Options of the command line, generated from pydantic models."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from .config import Config

_PLAIN = (int, float, bool, str, Path)
_NOT_GIVEN = type(None)


def options_of(config: type[Config], *, panel: str | None = None) -> list[inspect.Parameter]:
    """Return one option of typer per field of a model.

    A field of several types, such as `float | Literal["auto"]`, is a text option; the model itself
    converts and checks the value.

    Args:
        config: Model whose fields have a default and a `Field(description=...)`.
        panel: Heading of the options in the help.

    Returns:
        Keyword-only parameters named after the fields. Their default is `None`: not given.
    """
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[_option_type(field.annotation) | None, _option(field, panel)],
        )
        for name, field in config.model_fields.items()
    ]


def with_options(
    config: type[Config], *, panel: str | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command of typer one option per field of a model.

    The command declares `**options`. It receives the options that were given on the command line,
    and no others, so that a configuration file can stand behind them.

    Args:
        config: See `options_of`.
        panel: See `options_of`.

    Returns:
        Decorator of the command, to be placed below `app.command()`.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        generated = options_of(config, panel=panel)

        @wraps(command)
        def wrapper(**arguments: object) -> Any:
            absent = {option.name for option in generated if arguments.get(option.name) is None}
            return command(**{k: value for k, value in arguments.items() if k not in absent})

        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(command, eval_str=True).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        signature = inspect.Signature([*own, *generated])
        # typer reads both
        wrapper.__signature__ = signature  # type: ignore[attr-defined] # functions allow it
        wrapper.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        return wrapper

    return decorate


def _option_type(annotation: Any) -> Any:
    """Return the type of typer for the annotation of a field."""
    kinds = [kind for kind in get_args(annotation) if kind is not _NOT_GIVEN]
    if _NOT_GIVEN in get_args(annotation) and len(kinds) == 1:
        annotation = kinds[0]  # of "int | None"
    if annotation in _PLAIN or get_origin(annotation) is Literal:
        return annotation
    if get_origin(annotation) in (tuple, list) and Ellipsis not in get_args(annotation):
        return annotation
    if get_origin(annotation) is tuple:  # of any length
        return list.__class_getitem__(get_args(annotation)[0])
    return str


def _option(field: FieldInfo, panel: str | None) -> Any:
    import typer

    default = "" if field.is_required() or field.default is None else f" [{field.default}]"
    return typer.Option(help=f"{field.description or ''}{default}", rich_help_panel=panel)
