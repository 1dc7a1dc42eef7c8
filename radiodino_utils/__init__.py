"""Use and reproduce RadioDINO, self-supervised vision transformers for radiology.

    import radiodino_utils as rd

    features = rd.extract_features("radiodino-mini", "organct-axial")
    rd.score(rd.classify(features, "logistic"))

Names are imported at first use, so that importing the package costs no torch.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .core.lazy import attach

if TYPE_CHECKING:
    from . import explain as explain
    from . import plots as plots
    from . import radiomics as radiomics
    from .backbones.loading import load_backbone as load_backbone
    from .core.errors import InputError as InputError
    from .data.inspection import inspect as inspect
    from .data.registry import load_dataset as load_dataset
    from .data.registry import with_test as with_test
    from .data.segmentation import load_segmentation_dataset as load_segmentation_dataset
    from .evaluation.audit import audit as audit
    from .evaluation.few_shot import classify_few_shot as classify_few_shot
    from .evaluation.finetuning import finetune as finetune
    from .evaluation.pooling import pool as pool
    from .evaluation.protocols import classify as classify
    from .evaluation.scoring import score as score
    from .evaluation.segmentation.probes import segment as segment
    from .explain.attention import attention_maps as attention_maps
    from .explain.class_activation import grad_cam as grad_cam
    from .explain.patches import patch_pca as patch_pca
    from .features.extraction import extract_features as extract_features
    from .features.patch_maps import extract_patch_maps as extract_patch_maps
    from .features.projection import project as project
    from .pretraining.trainer import pretrain as pretrain
    from .radiomics.extraction import extract_radiomics as extract_radiomics
    from .workflow.results import Results as Results

__version__ = "0.1.0"

_NAMES = {
    "backbones.loading": ("load_backbone",),
    "core.errors": ("InputError",),
    "data.inspection": ("inspect",),
    "data.registry": ("load_dataset", "with_test"),
    "data.segmentation": ("load_segmentation_dataset",),
    "evaluation.audit": ("audit",),
    "evaluation.few_shot": ("classify_few_shot",),
    "evaluation.finetuning": ("finetune",),
    "evaluation.pooling": ("pool",),
    "evaluation.protocols": ("classify",),
    "evaluation.scoring": ("score",),
    "evaluation.segmentation.probes": ("segment",),
    "explain.attention": ("attention_maps",),
    "explain.class_activation": ("grad_cam",),
    "explain.patches": ("patch_pca",),
    "features.extraction": ("extract_features",),
    "features.patch_maps": ("extract_patch_maps",),
    "features.projection": ("project",),
    "pretraining.trainer": ("pretrain",),
    "radiomics.extraction": ("extract_radiomics",),
    "workflow.results": ("Results",),
}
_import_name, _, _public = attach(__name__, _NAMES)
__all__ = ["__version__", "explain", "plots", "radiomics", *_public]

# No telemetry: OpenVINO takes its own stub where this package cannot be imported, and the Hub's
# client reads the variable.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment] # blocks the import
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def __getattr__(name: str) -> Any:
    if name in ("explain", "plots", "radiomics"):
        return import_module(f"{__name__}.{name}")
    return _import_name(name)


def __dir__() -> list[str]:
    return sorted(__all__)
