"""Options of the command line, generated from pydantic models and dataclasses."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

_PLAIN = (int, float, bool, str, Path)
_NOT_GIVEN = type(None)


def options_of(config: type[Any], *, panel: str | None = None) -> list[inspect.Parameter]:
    """Return one option of typer per field of a model.

    A field of several types, such as `float | Literal["auto"]`, is a text option; the model itself
    converts and checks the value.

    Args:
        config: `Config` whose fields have a `Field(description=...)`, or a dataclass whose fields
            have `help` and `metavar` in their metadata.
        panel: Heading of the options in the help.

    Returns:
        Keyword-only parameters named after the fields. Their default is `None`: not given.
    """
    import typer

    parameters = []
    for name, annotation, text, metavar in _fields(config):
        kind = _option_type(annotation)
        flag = [f"--{name.replace('_', '-')}"] if kind is bool and is_dataclass(config) else []
        option = typer.Option(*flag, help=text, metavar=metavar, rich_help_panel=panel)
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[kind | None, option],
            )
        )
    return parameters


def _fields(config: type[Any]) -> Iterator[tuple[str, Any, str, str | None]]:
    """Yield name, type, help and metavar of each field."""
    if is_dataclass(config):
        for option in fields(config):
            yield option.name, option.type, option.metadata["help"], option.metadata["metavar"]
        return
    for name, field in config.model_fields.items():
        is_plain = field.default is None or field.default is False or field.default == ()
        has_default = not field.is_required() and not is_plain
        default = f" [{field.default}]" if has_default else ""
        yield name, field.annotation, f"{field.description or ''}{default}", None


def with_options(
    config: type[Any], *, panel: str | None = None
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
