import numpy as np

from radiodino_utils.predictions import prediction

from .made import made_features


def test_labels_and_ids_are_those_of_the_split():
    features = made_features(caveat="one patient")
    probabilities = np.full((24, 3), 1 / 3)
    one = prediction(features, protocol="knn", split="val", probabilities=probabilities, choice={"k": 5})
    assert one.labels is features.labels["val"] and one.ids == features.ids["val"]
    assert (one.dataset, one.backbone, one.weights, one.caveat) == ("made", "random-t16", "0123456789ab", "one patient")
    assert (one.protocol, one.split, one.classes, one.choice) == ("knn", "val", features.classes, {"k": 5})
    assert one.probabilities is probabilities
