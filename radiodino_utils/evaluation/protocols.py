"""Registry of classification protocols on frozen features."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial

from ..core.errors import InputError, unknown_name
from ..features.features import Features, require_features
from .knn import KS, classify_knn
from .linear import classify_linear
from .logistic import classify_logistic
from .predictions import Prediction

_protocols: dict[str, Callable[..., Prediction]] = {}


def register_protocol(name: str, function: Callable[..., Prediction]) -> None:
    """Add a protocol that `classify` runs by its registered name.

    Args:
        name: Registered name, also the `protocol` of the predictions.
        function: Takes `Features`, fits on the train split, chooses on val and returns a
            `Prediction` of the test split (see `predictions.prediction`); with `val_probabilities`
            it can be compared with other protocols on val. Of the keyword options `ks`,
            `iterations` and `seed` of `classify` it receives those that it declares.

    Raises:
        InputError: If the name belongs to another protocol, or `function` is not callable.
    """
    if not callable(function):
        raise InputError(f"protocol {name}: {function!r} is no function of features; pass one.")
    if _protocols.setdefault(name, function) is not function:
        raise InputError(f"protocol {name}: is registered already; choose another name.")


def protocol_names() -> tuple[str, ...]:
    """Return the registered names in the order of their registration."""
    return tuple(_protocols)


def classify(
    features: Features,
    protocol: str,
    *,
    ks: Sequence[int] = KS,
    iterations: int = 12_500,
    seed: int = 0,
) -> Prediction:
    """Classify the test split by a protocol; all choices are made on the validation split.

    Args:
        features: Features returned by `extract_features`; for "linear" of a backbone
            `with_blocks`.
        protocol: Registered name: "knn", "knn-k20", "knn1", "knn11", "knn20" (see
            `classify_knn`), "logistic", "logistic-balanced" (see `classify_logistic`), "linear"
            (see `classify_linear`), or one added by `register_protocol`.
        ks: Candidate numbers of neighbours of "knn".
        iterations: Optimizer steps of "linear".
        seed: Seed of "linear".

    Returns:
        Probabilities of the test split.

    Raises:
        InputError: If the protocol is unknown, `features` are of another type, or the protocol
            cannot use them.
    """
    require_features(features)
    if not isinstance(protocol, str) or protocol not in _protocols:
        raise unknown_name("protocol", protocol, _protocols)
    function = _protocols[protocol]
    declared = inspect.signature(function).parameters
    options = {"ks": ks, "iterations": iterations, "seed": seed}
    return function(features, **{name: options[name] for name in options if name in declared})


for _name in ("knn", "knn-k20", "knn1", "knn11", "knn20"):
    register_protocol(_name, partial(classify_knn, protocol=_name))
register_protocol("logistic", classify_logistic)
register_protocol("logistic-balanced", partial(classify_logistic, balanced=True))
register_protocol("linear", classify_linear)
