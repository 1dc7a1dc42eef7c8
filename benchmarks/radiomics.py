"""Time features of 1, 10 and 89 masks of the demo's CT; writes `radiomics.csv` beside this file.

    python benchmarks/radiomics.py [--rounds N] [--only deep|handcrafted]

Masks are those that lie in the most slices, of every eighth slice and second pixel. Each round runs
each way once, in turning order, so that other load of the machine affects all of them alike:

1. deep, `dense pass`: `DeepExtractor`, each slice once for all masks, without crops.
2. deep, `dense pass and crops`: with a crop around the largest slice of each mask, as by default.
3. deep, `crop per mask and slice`: as tools for handcrafted features do it, mask by mask: a crop of
   each slice of a mask, the mean of their embeddings.
4. handcrafted, `handcrafted_features`: ours, in the box of each mask, with shape.
5. handcrafted, `fastrad's loop`: the whole image for each mask, as its documentation shows, without
   shape, whose memory grows with the square of the corners of a mesh.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastrad import FeatureExtractor, FeatureSettings, Mask, MedicalImage

from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.core.environment import git_revision, set_threads, versions
from radiodino_utils.evaluation.results import write_table
from radiodino_utils.radiomics.cases import Case, Region, find_regions
from radiodino_utils.radiomics.deep import DeepExtractor
from radiodino_utils.radiomics.handcrafted import TEXTURES, handcrafted_features
from radiodino_utils.radiomics.options import RadiomicsOptions
from radiodino_utils.radiomics.readers import case_readers

BACKBONE, WINDOW, COUNTS, BIN_WIDTH = "radiodino-mini", "abdomen", (1, 10, 89), 25.0
STEPS = (8, 2, 2)
TABLE = Path(__file__).with_suffix(".csv")


def thinned_case() -> Case:
    """Return every eighth slice and second pixel of the demo's CT."""
    case = case_readers("demo-ct")["demo-ct"]()
    thin = tuple(slice(None, None, step) for step in STEPS)
    spacing = tuple(s * step for s, step in zip(case.spacing_mm, STEPS, strict=True))
    return Case("demo-ct", case.values[thin], case.labels[thin], spacing_mm=spacing)


def per_mask(extractor: DeepExtractor, case: Case, regions: list[Region]) -> np.ndarray:
    """Embed a crop of each slice of each mask."""
    spacing, window = np.array(case.spacing_mm[1:]), extractor.options.grey_window
    means = []
    for region in regions:
        places = np.flatnonzero(region.inside.any((1, 2)))
        crops = (extractor._crop(case, region, 0, int(p), spacing, window) for p in places)
        means.append(np.mean([output[0][0] for output in extractor.whole.map(crops)], axis=0))
    return np.stack(means)


def ours(case: Case, regions: list[Region]) -> np.ndarray:
    """Return the contrast of each mask, of all handcrafted features."""
    options = RadiomicsOptions(bin_width=BIN_WIDTH)
    found = [
        handcrafted_features(
            case.values[region.box].astype(np.float32),
            region.inside,
            spacing_mm=case.spacing_mm,
            options=options,
        )[0]
        for region in regions
    ]
    return np.array([features.get("glcm_contrast", np.nan) for features in found])


def fastrad_loop(case: Case, regions: list[Region]) -> np.ndarray:
    """Return the same by fastrad's own loop."""
    settings = FeatureSettings(
        feature_classes=["firstorder", *TEXTURES], bin_width=BIN_WIDTH, device="cpu"
    )
    extractor = FeatureExtractor(settings)
    image = MedicalImage(torch.from_numpy(case.values.astype(np.float32)), case.spacing_mm)
    contrast = []
    for region in regions:
        mask = torch.from_numpy((case.labels == region.label).astype(np.float32))
        found = extractor.extract(image, Mask(mask, case.spacing_mm))
        contrast.append(found.get("glcm:contrast", np.nan))
    return np.array(contrast)


def timed(ways: dict[str, Callable], regions: list[Region], rounds: int) -> pd.DataFrame:
    """Return seconds of each way and round."""
    lines = []
    for turn in range(rounds):
        names = [list(ways)[(place + turn) % len(ways)] for place in range(len(ways))]
        for name in names:
            start, cpu = time.perf_counter(), time.process_time()
            found = ways[name](regions)
            seconds = {"seconds": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}
            lines.append({"way": name, "round": turn, "found": found} | seconds)
            print(f"{len(regions):3d} masks, {name}: {seconds['seconds']:.1f} s", flush=True)
    return pd.DataFrame(lines)


def main() -> None:
    """Measure and write the table; rows of a kind that is left out are kept."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("deep", "handcrafted"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    threads, case = set_threads(), thinned_case()
    regions = sorted(find_regions(case), key=lambda region: -region.inside.any((1, 2)).sum())
    backbone = load_backbone(BACKBONE)
    dense, both = (
        DeepExtractor(backbone, RadiomicsOptions(window=WINDOW, crop=crop))
        for crop in (False, True)
    )
    kinds = {
        "deep": {
            "dense pass": partial(dense, case),
            "dense pass and crops": partial(both, case),
            "crop per mask and slice": partial(per_mask, both, case),
        },
        "handcrafted": {
            "handcrafted_features": partial(ours, case),
            "fastrad's loop": partial(fastrad_loop, case),
        },
    }
    both(case, regions[:1])
    lines = []
    for kind, ways in kinds.items():
        for count in COUNTS if options.only in (None, kind) else ():
            table = timed(ways, regions[:count], options.rounds)
            if kind == "handcrafted":
                first, *others = table["found"]
                assert all(np.allclose(first, other, rtol=1e-4, equal_nan=True) for other in others)
            wide = table.pivot(index="round", columns="way", values="seconds")
            cpu = table.groupby("way")["cpu_s"].median()
            lines += [
                {"kind": kind, "way": way, "masks": len(regions[:count]), "rounds": options.rounds}
                | {"seconds": wide[way].median(), "cpu_s": cpu[way]}
                | {"ratio_to_first": (wide[way] / wide[next(iter(ways))]).median()}
                for way in ways
            ]
    facts = {"backbone": BACKBONE, "slices": len(case.values), "threads": threads}
    tools = versions(("fastrad", "torch", "openvino", "scikit-image"))
    facts |= {"versions": ", ".join(map(" ".join, tools.items())), "git": git_revision()}
    table = pd.DataFrame(lines).assign(**facts).round(3)
    if TABLE.exists() and options.only:
        kept = pd.read_csv(TABLE)
        table = pd.concat([kept[kept["kind"] != options.only], table])
    write_table(table.sort_values("kind", kind="stable"), TABLE)


if __name__ == "__main__":
    main()
