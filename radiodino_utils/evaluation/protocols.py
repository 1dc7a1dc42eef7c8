"""The protocols on frozen features by registered name."""

from collections.abc import Callable, Sequence

from ..core.errors import unknown
from ..features.extraction import Features
from .knn import KS, PLAIN_KS, classify_knn
from .linear import classify_linear
from .logistic import classify_logistic
from .predictions import Prediction

FROZEN = ("knn", "knn-k20", *PLAIN_KS, "logistic", "logistic-balanced", "linear")


def classify(
    features: Features,
    protocol: str,
    *,
    ks: Sequence[int] = KS,
    iterations: int = 12_500,
    seed: int = 0,
) -> Prediction:
    """Classifies the test split by a protocol; whatever is chosen is chosen on validation.

    Args:
        features: What `extract_features` gives; for "linear" of a backbone `with_blocks`.
        protocol: "knn", "knn-k20", "knn1", "knn11", "knn20" (see `classify_knn`), "logistic",
            "logistic-balanced" (see `classify_logistic`) or "linear" (see `classify_linear`).
        ks: Of "knn".
        iterations: Of "linear".
        seed: Of "linear".

    Returns:
        Probabilities of the test split.

    Raises:
        InputError: If the protocol is unknown, and see the protocols.
    """
    ways: dict[str, Callable[[], Prediction]] = {
        "logistic": lambda: classify_logistic(features),
        "logistic-balanced": lambda: classify_logistic(features, balanced=True),
        "linear": lambda: classify_linear(features, iterations=iterations, seed=seed),
    } | {
        name: lambda name=name: classify_knn(features, protocol=name, ks=ks)
        for name in ("knn", "knn-k20", *PLAIN_KS)
    }
    if protocol not in ways:
        raise unknown("protocol", protocol, FROZEN)
    return ways[protocol]()
