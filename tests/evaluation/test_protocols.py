import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.evaluation.protocols import FROZEN, classify

from ..synthetic import synthetic_features


@pytest.mark.parametrize("name", FROZEN)
def test_every_protocol_names_itself(name):
    one = classify(synthetic_features(noise=0.2), name, iterations=100)
    assert one.protocol == name and (one.probabilities.argmax(1) == one.labels).mean() > 0.9


def test_an_unknown_protocol():
    with pytest.raises(InputError, match="unknown protocol 'lineer'; did you mean linear"):
        classify(synthetic_features(), "lineer")
