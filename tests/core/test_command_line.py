from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from radiodino_utils.core.command_line import with_options
from radiodino_utils.core.config import Config


class Options(Config):
    epochs: int = Field(3, ge=1, description="Passes over the train split.")
    learning_rate: float | Literal["auto"] = Field("auto", description="Learning rate.")
    size: tuple[int, int] = Field((2, 3), description="Height and width in pixels.")
    weights: Literal["sqrt", "none"] = Field("sqrt", description="Class weights.")
    mirror: bool = Field(True, description="Whether images are mirrored.")
    steps: int | None = Field(None, description="Length in steps.")
    teachers: tuple[str, ...] = Field((), description="Names of the teachers.")


@pytest.fixture
def invoke():
    """Run a command with the options of the model; return the result and what it received."""
    app, received = typer.Typer(rich_markup_mode=None), {}

    @app.command()
    @with_options(Options)
    def train(*, out: Annotated[Path, typer.Option(help="Folder.")], **options: object) -> None:
        """Train."""
        received.update(options, out=out)

    def run(*words):
        received.clear()
        return CliRunner().invoke(app, [*words]), received

    return run


def test_only_options_that_were_given_reach_the_command_and_fit_the_model(invoke):
    assert invoke("--out", "runs")[1] == {"out": Path("runs")}
    words = "--out runs --epochs 5 --learning-rate 1e-3 --size 4 5 --weights none --no-mirror"
    result, received = invoke(*words.split(), "--teachers", "a", "--teachers", "b", "--steps", "7")
    assert result.exit_code == 0, result.output
    assert received.pop("out") == Path("runs")
    options = Options(**received)
    assert options == Options(
        epochs=5,
        learning_rate=1e-3,
        size=(4, 5),
        weights="none",
        mirror=False,
        steps=7,
        teachers=("a", "b"),
    )


def test_help_shows_descriptions_and_defaults(invoke):
    shown = " ".join(invoke("--help")[0].output.split())
    for words in ("Passes over the train split. [3]", "Learning rate. [auto]", "sqrt|none"):
        assert words in shown


@pytest.mark.parametrize("words", [("--epochs", "many"), ("--weights", "cube"), ("--epoch", "1")])
def test_a_wrong_value_or_name_is_refused_before_the_command_runs(words, invoke):
    result, received = invoke("--out", "runs", *words)
    assert result.exit_code == 2 and received == {}


def test_a_dataclass_declares_options_too():
    @dataclass(frozen=True)
    class Declared:
        only: tuple[str, ...] = field(default=(), metadata={"help": "Names.", "metavar": "03"})
        check: bool = field(default=False, metadata={"help": "Compare.", "metavar": None})

    app, received = typer.Typer(rich_markup_mode=None), {}
    app.command()(with_options(Declared)(lambda **options: received.update(options)))
    assert "--no-check" not in CliRunner().invoke(app, ["--help"]).output
    CliRunner().invoke(app, ["--only", "01", "--only", "02", "--check"])
    assert Declared(**received) == Declared(["01", "02"], True)
