"""Base of all options: immutable pydantic models whose errors are one sentence."""

from typing import Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import InputError, unknown_name


class Config(BaseModel):
    """Options with defaults and descriptions, from which command line, YAML and docs are made.

    Raises:
        InputError: If an option is unknown or its value is not valid; the message names it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **options: object) -> None:
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise _input_error(type(self), error) from None

    def with_changes(self, **changes: object) -> Self:
        """Return a copy with some options changed and all of them checked again."""
        return type(self)(**(dict(self) | changes))


def _input_error(config: type[Config], error: ValidationError) -> InputError:
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"])) or config.__name__
    if first["type"] == "extra_forbidden":
        return unknown_name(f"option of {config.__name__}", name, config.model_fields)
    if first["type"] == "literal_error":
        return unknown_name(
            name, str(first["input"]), get_args(config.model_fields[name].annotation)
        )
    if isinstance(cause := first.get("ctx", {}).get("error"), InputError):  # of a validator
        return cause
    reason = first["msg"][:1].lower() + first["msg"][1:]
    return InputError(f"{name} {first['input']!r}: is not valid, {reason}.")
