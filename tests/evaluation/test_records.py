import pandas as pd

from radiodino_utils.evaluation.knn import classify_knn
from radiodino_utils.evaluation.records import class_numbers, write_predictions, write_scores

from ..synthetic import synthetic_features


def test_the_number_of_classes_is_that_of_each_dataset(tmp_path):
    datasets = {"two": 2, "five": 5}
    predictions = [
        classify_knn(synthetic_features(dataset=name, classes=count), protocol="knn1")
        for name, count in datasets.items()
    ]
    write_predictions(predictions, tmp_path / "03_knn_rows.parquet")
    write_scores(pd.DataFrame({"dataset": ["other"]}), tmp_path / "05_rows.parquet")
    assert class_numbers(tmp_path) == datasets
    assert class_numbers(tmp_path / "absent") == {}
