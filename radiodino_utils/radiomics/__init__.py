"""Radiomics: deep and handcrafted features of regions, their stability, and models of them."""

from ..core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "cases": ("Case", "Region", "find_regions", "read_case"),
        "extraction": ("extract_radiomics",),
        "handcrafted": ("handcrafted_features",),
        "icc": ("intraclass_correlation",),
        "maps": ("feature_map", "write_feature_maps"),
        "models": ("RadiomicsModels", "cross_validated_models"),
        "options": ("RadiomicsOptions",),
        "perturbations": ("perturbed",),
        "reports": ("write_structured_report",),
        "selection": ("OneOfEachCluster",),
        "stability": (
            "feature_correlations",
            "measured_values",
            "perturb_radiomics",
            "reader_tables",
            "stability_table",
            "stable_features",
        ),
        "survival": ("SurvivalModels", "cross_validated_survival"),
        "table": ("RadiomicsTable",),
    },
)
