"""What `score` returns is printed for readers in one line per dataset."""

import pytest

from radiodino_utils.evaluation.protocols import classify
from radiodino_utils.evaluation.scoring import print_accuracy, score

from ..synthetic import synthetic_features


def test_accuracy_is_printed_by_dataset_with_the_best_backbone_first(
    capsys: pytest.CaptureFixture,
) -> None:
    features = [
        synthetic_features(noise=9.0),
        synthetic_features(noise=0.1, backbone="radiodino-mini"),
        synthetic_features(dataset="other"),
    ]
    rows = score([classify(entry, "knn1") for entry in features])
    print_accuracy(rows, protocol="knn1", classes={"made": 3, "other": 3})
    print_accuracy(rows, protocol="knn1")
    first, second, brief, _ = capsys.readouterr().out.splitlines()
    assert first.startswith(
        "made (n = 30, chance 33.3 %): radiodino-mini 100.0 % [100.0, 100.0], random-t16 "
    )
    assert second.startswith("other (n = 30, chance 33.3 %): random-t16 ")
    assert brief.startswith("made (n = 30): radiodino-mini 100.0 %")
