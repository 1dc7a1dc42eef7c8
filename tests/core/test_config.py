from typing import Literal, Self

import pytest
from pydantic import Field, model_validator

from radiodino_utils.core.config import Config
from radiodino_utils.core.errors import InputError


class Options(Config):
    epochs: int = Field(3, ge=1, description="Passes over the train split.")
    size: tuple[int, int] = Field((2, 3), description="Height and width in pixels.")
    weights: Literal["sqrt", "none"] = Field("sqrt", description="Class weights.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.size[0] > self.epochs:
            raise InputError(f"size {self.size}: choose a smaller one.")
        return self


def test_changes_are_checked_and_the_original_stays():
    options = Options()
    assert options.with_changes(epochs="5") == Options(epochs=5) and options.epochs == 3
    assert options.with_changes(size=[1, 2]).size == (1, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 1}, "unknown option of Options 'epoch'; did you mean epochs"),
        ({"epochs": 0}, "epochs 0: is not valid, input should be greater than or equal to 1"),
        ({"epochs": "many"}, "epochs 'many': is not valid, input should be a valid integer"),
        ({"weights": "sqt"}, "unknown weights 'sqt'; did you mean sqrt"),
        ({"size": (9, 9)}, r"^size \(9, 9\): choose a smaller one"),
        ({"size": (1,)}, r"size.1 \(1,\): is not valid, field required"),
    ],
)
def test_a_wrong_option_is_one_sentence_that_names_it(changes, message):
    with pytest.raises(InputError, match=message):
        Options().with_changes(**changes)
