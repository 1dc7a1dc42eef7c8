import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.pretraining.distillation_config import DistillationConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arch": "t32"}, "unknown architecture 't32'"),
        ({"crops": 4}, "a batch needs two crops, and a run one batch"),
        ({"sizes": ((100, 1.0),)}, "multiples of 16 up to 224"),
        ({"sizes": ((112, 0.5),)}, "the share of the run at which it ends"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(InputError, match=message):
        DistillationConfig(**settings)
