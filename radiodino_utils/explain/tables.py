"""Tables of explanations: diversity of heads, scores of maps, comparisons with controls."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from ..backbones.backbone import Backbone
from ..core.environment import git_revision
from ..core.errors import InputError
from ..evaluation.metrics import mean_interval
from ..evaluation.results import COLUMNS
from ..features.feature_model import as_tensor
from .attention import attention_maps, head_diversity
from .class_activation import Scores
from .faithfulness import CONTROLS, METRICS, explanation_maps, mass_share, pointing_hit, road


def diversity_table(
    backbones: Sequence[Backbone], images: Sequence[np.ndarray], ids: Sequence[str]
) -> pd.DataFrame:
    """Return how much the heads of each block differ, image by image.

    Args:
        backbones: Vision transformers of timm.
        images: uint8, [height, width] or [height, width, 3] each.
        ids: Id of each image.

    Returns:
        Columns backbone, block (counted from 1), image (its id) and divergence_bits; see
        `head_diversity`.
    """
    tables = []
    for backbone in backbones:
        blocks = range(len(backbone.model.blocks))
        for image, name in zip(images, ids, strict=True):
            divergence = head_diversity(attention_maps(backbone, image, blocks=blocks).rows)
            columns = {"backbone": backbone.name, "block": [block + 1 for block in blocks]}
            tables.append(pd.DataFrame(columns | {"image": name, "divergence_bits": divergence}))
    return pd.concat(tables, ignore_index=True)


def explanation_scores(
    backbones: Sequence[Backbone],
    probes: Mapping[str, Mapping[str, nn.Module]],
    images: Sequence[np.ndarray],
    masks: np.ndarray,
    *,
    judge: str,
    seen_in_pretraining: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Score every type of map on several images, for the class that the judging probe predicts.

    Args:
        backbones: Vision transformers and convolutional networks of timm.
        probes: For each name of a backbone its probes by name; see `explanation_maps`.
        images: uint8, [height, width] or [height, width, 3] each.
        masks: Structure that the maps should lie on, bool, [n, height, width].
        judge: Name of the probe whose probability ROAD reads, the same for every type of map.
        seen_in_pretraining: For each name of a backbone what its pre-training saw; see
            `Prediction`. "not known" by default.

    Returns:
        One row per backbone, image and type of map that it has (see `explanation_maps`): map, image
        (its position), road, mass_share, pointing, backbone, weights, seen_in_pretraining.

    Raises:
        InputError: If the numbers of images and masks differ; see also `grad_cam` and `mass_share`.
    """
    if len(images) != len(masks):
        raise InputError(
            f"{len(images)} images and {len(masks)} masks: one mask per image is needed."
        )
    seen, tables = seen_in_pretraining or {}, []
    for backbone in backbones:
        facts = {"backbone": backbone.name, "weights": backbone.fingerprint}
        facts["seen_in_pretraining"] = seen.get(backbone.name, "not known")
        scores = _scores(backbone, probes[backbone.name], images, masks, judge)
        tables.append(pd.DataFrame(scores).assign(**facts))
    return pd.concat(tables, ignore_index=True)


def _scores(
    backbone: Backbone,
    probes: Mapping[str, nn.Module],
    images: Sequence[np.ndarray],
    masks: np.ndarray,
    judge: str,
) -> list[dict[str, object]]:
    model, scores = Scores(backbone, probes[judge]), []
    progress = tqdm(images, desc=f"scoring maps of {backbone.name}")
    for position, (image, mask) in enumerate(zip(progress, masks, strict=True)):
        with torch.inference_mode():
            target = int(model(as_tensor(backbone, image)).argmax())
        for name, map_ in explanation_maps(backbone, probes, image, target).items():
            values = {
                "road": road(backbone, probes[judge], image, map_, target),
                "mass_share": mass_share(map_, mask),
                "pointing": pointing_hit(map_, mask),
            }
            scores.append({"map": name, "image": position} | values)
    return scores


def mass_table(maps: Mapping[str, Mapping[str, np.ndarray]], mask: np.ndarray) -> pd.DataFrame:
    """Return the share of the mass of each map that lies on a mask.

    Args:
        maps: For each name of a backbone its maps by name, not negative, [grid height, grid width].
        mask: bool, [height, width].

    Returns:
        Columns backbone, map and mass_share; see `mass_share`.
    """
    rows = []
    for backbone, named in maps.items():
        rows += [(backbone, name, mass_share(map_, mask)) for name, map_ in named.items()]
    return pd.DataFrame(rows, columns=["backbone", "map", "mass_share"])


def explanation_rows(
    scores: pd.DataFrame, *, dataset: str, split: str, seed: int = 0, caveat: str = ""
) -> pd.DataFrame:
    """Return the mean over images with its bootstrap 95 % interval, for each type of map.

    Args:
        scores: Scores returned by `explanation_scores`, of one or several backbones.
        dataset: Name of the dataset.
        split: Split of the images.
        seed: Seed of the bootstrap.
        caveat: Caveat to display with every result.

    Returns:
        Rows with `results.COLUMNS`; `protocol` is the type of map.
    """
    common = {"dataset": dataset, "task": "explanation", "split": split, "seed": seed}
    common |= {"positive": "", "engine": "torch", "precision": "fp32"}
    common |= {"unit": "image", "groups_from": ""}
    common |= {"git": git_revision(), "choice": "", "caveat": caveat}
    keys = ["backbone", "weights", "seen_in_pretraining"]
    table = []
    for (*names, map_name), part in scores.groupby([*keys, "map"], sort=False):
        facts = common | dict(zip(keys, names, strict=True)) | {"protocol": map_name}
        for metric in METRICS:
            values = part[metric].dropna().to_numpy()
            interval = mean_interval(values, seed=seed)
            row = {"metric": metric, "n": len(values), "units": len(values)}
            row["value"] = interval.value
            table.append(facts | row | {"ci_low": interval.low, "ci_high": interval.high})
    return pd.DataFrame(table, columns=list(COLUMNS))


def against_control(scores: pd.DataFrame, control: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Compare maps with a control on the same images.

    ROAD reads the probability of each backbone's own probe, so between backbones it compares models
    as well as maps.

    Args:
        scores: Scores returned by `explanation_scores`, of one backbone.
        control: Scores of the control: of another backbone, such as one with random weights, or of
            one control map, which is then compared with every map.
        seed: Seed of the bootstrap.

    Returns:
        One row per score and type of map that both have: map, metric, difference (the mean over
        images), ci_low, ci_high (its bootstrap 95 % interval), n, verdict ("beats the control",
        "loses to the control" or "no difference shown").
    """
    table = []
    is_single = control["map"].nunique() == 1
    for name, part in scores[~scores["map"].isin(CONTROLS)].groupby("map", sort=False):
        other = control if is_single else control[control["map"] == name]
        if other.empty:  # the attention of a vision transformer beside a convolutional network
            continue
        values, references = part.set_index("image"), other.set_index("image")
        for metric, label in METRICS.items():
            difference = (values[metric] - references[metric]).dropna().to_numpy()
            interval = mean_interval(difference, seed=seed)
            row = {"map": name, "metric": label, "difference": interval.value}
            row |= {"ci_low": interval.low, "ci_high": interval.high, "n": len(difference)}
            table.append(row | {"verdict": _verdict(interval.low, interval.high)})
    return pd.DataFrame(table)


def _verdict(low: float, high: float) -> str:
    if low > 0:
        return "beats the control"
    return "loses to the control" if high < 0 else "no difference shown"


def against_controls(scores: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Compare the maps of several backbones with every control.

    Args:
        scores: Scores returned by `explanation_scores`, of all backbones together.
        seed: Seed of the bootstrap.

    Returns:
        The rows of `against_control` with a column `comparison`, such as "BACKBONE against even":
        first each backbone against the last one, then each against the maps `even` and `centre`.
    """
    parts = dict(list(scores.groupby("backbone", sort=False)))
    *others, last = parts
    pairs = {f"{name} against {last}": (parts[name], parts[last]) for name in others}
    for name, part in parts.items():
        for control in ("even", "centre"):
            pairs[f"{name} against {control}"] = (part, part[part["map"] == control])
    tables = [
        against_control(*pair, seed=seed).assign(comparison=name) for name, pair in pairs.items()
    ]
    return pd.concat(tables, ignore_index=True)


def maps_that_beat_controls(comparisons: pd.DataFrame) -> list[str]:
    """Return a sentence for each backbone and score: which maps beat every control.

    Args:
        comparisons: Rows returned by `against_controls`.
    """
    backbones = comparisons["comparison"].str.split(" against ").str[0]
    beats = comparisons.assign(beats=comparisons["verdict"] == "beats the control")
    sentences = []
    for (backbone, metric), part in beats.groupby([backbones, "metric"], sort=False):
        by_map = part.groupby("map", sort=False)["beats"].all()
        names = ", ".join(by_map.index[by_map]) or "none"
        sentences.append(f"{backbone}, {metric}: maps that beat every control: {names}.")
    return sentences
