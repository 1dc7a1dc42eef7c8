"""The table of radiomics: one row per region, a data dictionary, and what was left out."""

import csv
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Self

import pandas as pd

from ..core.checks import FORMULA
from ..core.errors import InputError
from ..core.files import atomic, make_folder, write_json

REGION_COLUMNS = {  # unit and meaning
    "case": ("", "name of the image"),
    "patient": ("", "patient; the name of the image if nothing says it"),
    "label": ("", "value in the mask"),
    "name": ("", "name of the label"),
    "component": ("", "connected component of the label, the largest first; 0: the whole label"),
    "spacing_slices_mm": ("mm", "distance of slices; empty for an image of one slice"),
    "spacing_rows_mm": ("mm", "distance of rows; empty if it is not known"),
    "spacing_columns_mm": ("mm", "distance of columns; empty if it is not known"),
    "size_slices_mm": ("mm", "extent across slices"),
    "size_rows_mm": ("mm", "extent across rows"),
    "size_columns_mm": ("mm", "extent across columns"),
    "voxels": ("", "voxels of the region, before resampling"),
    "patches": ("", "patches that the region covers, summed over slices, mean over planes"),
}
_DEEP = {
    "deep_mean": "mean of the patch tokens, weighted by coverage",
    "deep_max": "maximum of the patch tokens that the region covers by half",
    "deep_std": "standard deviation of the patch tokens, weighted by coverage",
    "deep_crop": "embedding of the crop around the region",
}
WRITTEN = (".parquet", ".csv")
KEYS = ["case", "label", "component"]  # of a region
EXCLUDED = ["case", "patient", "label", "component", "what", "reason"]


@dataclass(frozen=True, eq=False)
class RadiomicsTable:
    """Features of regions.

    Attributes:
        rows: One row per region: `REGION_COLUMNS`, facts of the case, `clinical_...`, handcrafted
            features (see `tables/handcrafted.csv`) and `deep_...`.
        excluded: What was left out: case, patient, label, component, what (row, or handcrafted
            features of a row) and reason.
        facts: Settings, backbone, versions, and patients or labels without a partner.
    """

    rows: pd.DataFrame
    excluded: pd.DataFrame
    facts: dict[str, Any]

    def __repr__(self) -> str:
        counts = [f"{len(self.columns(name))} {name}" for name in self.families()]
        shown = [f"{len(self.rows)} regions", *counts, f"{len(self.excluded)} excluded"]
        return f"RadiomicsTable({', '.join(shown)})"

    def families(self) -> list[str]:
        """Return the families of features that the table has: clinical, shape, ..., deep."""
        known = self.dictionary()["family"]
        return [name for name in dict.fromkeys(known) if name != "region"]

    def columns(self, *families: str) -> list[str]:
        """Return the names of features.

        Args:
            families: Families of `families`, or "handcrafted" for all but clinical and deep ones.
        """
        wanted = set(families)
        if "handcrafted" in wanted:
            wanted |= {*self.families()} - {"clinical", "deep"}
        dictionary = self.dictionary()
        return dictionary["name"][dictionary["family"].isin(wanted)].tolist()

    def reasons(self) -> pd.DataFrame:
        """Return the number of exclusions by what was left out and reason."""
        return self.excluded.groupby(["what", "reason"], sort=False).size().reset_index(name="n")

    def about(self) -> dict[str, str]:
        """Return backbone, weights, engine and precision of the deep features, empty without."""
        names = ("backbone", "weights", "engine", "precision")
        return {name: self.facts.get(name, "") for name in names}

    def with_deep(self, other: "RadiomicsTable") -> "RadiomicsTable":
        """Return the table with the deep features of another one of the same regions.

        Args:
            other: Table of the same images, by another backbone.

        Raises:
            InputError: If its regions are others.
        """
        if not self.rows[KEYS].equals(other.rows[KEYS]):
            raise InputError(
                "the tables hold other regions; extract both from the same images with the same "
                "options."
            )
        own = self.rows.drop(columns=["patches", *self.columns("deep")], errors="ignore")
        deep = other.rows[["patches", *other.columns("deep")]]
        return RadiomicsTable(pd.concat([own, deep], axis=1), self.excluded, other.facts)

    def dictionary(self) -> pd.DataFrame:
        """Return name, family, unit, IBSI code and meaning of each column."""
        handcrafted = handcrafted_dictionary()
        rows = []
        for name in self.rows:
            if name in handcrafted:
                rows.append(handcrafted[name])
            elif name.startswith("deep_"):
                meaning = f"{_DEEP[name.rpartition('_')[0]]}, dimension {int(name[-4:])}"
                rows.append((name, "deep", "", "", meaning))
            elif name.startswith("clinical_"):
                meaning = f"column {name.removeprefix('clinical_')} of the clinical table"
                rows.append((name, "clinical", "", "", meaning))
            else:
                unit, meaning = REGION_COLUMNS.get(name, ("", "fact of the case"))
                rows.append((name, "region", unit, "", meaning))
        return pd.DataFrame(rows, columns=["name", "family", "unit", "ibsi_code", "meaning"])

    def write(self, path: str | Path) -> list[Path]:
        """Write the table, its dictionary and its sidecar, each whole or not at all.

        Args:
            path: File whose suffix chooses the format: .parquet or .csv. `NAME.dictionary.csv` and
                `NAME.json` lie beside it; the latter holds settings and exclusions.

        Returns:
            The three files.

        Raises:
            InputError: If the suffix is another one, or a file cannot be written.
        """
        path = require_written(path)
        with atomic(path) as temporary:
            if path.suffix == ".csv":
                _guarded(self.rows).to_csv(temporary, index=False, lineterminator="\n")
            else:
                self.rows.to_parquet(temporary, index=False)
        dictionary, sidecar = path.with_suffix(".dictionary.csv"), path.with_suffix(".json")
        with atomic(dictionary) as temporary:
            _guarded(self.dictionary()).to_csv(temporary, index=False, lineterminator="\n")
        excluded = {
            "counts": self.reasons().to_dict("records"),
            "list": self.excluded.to_dict("records"),
        }
        write_json(sidecar, self.facts | {"regions": len(self.rows), "excluded": excluded})
        return [path, dictionary, sidecar]

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a table that `write` or `radiodino radiomics` wrote as parquet.

        Args:
            path: The file; its sidecar lies beside it.

        Returns:
            The table.

        Raises:
            InputError: If the table or its sidecar is missing, damaged, or no such file.
        """
        path = Path(path)
        try:
            rows = pd.read_parquet(path)
            facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            excluded = facts.pop("excluded")["list"]
            del facts["regions"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: no radiomics table in parquet with its sidecar beside it ({error}); "
                "write it again."
            ) from error
        return cls(rows, pd.DataFrame(excluded, columns=EXCLUDED, dtype=object), facts)


def require_written(path: str | Path) -> Path:
    """Return the absolute path of a table after checking that it can be written.

    Raises:
        InputError: If the suffix is none of `WRITTEN`, or the folder is read-only.
    """
    path = Path(path).absolute()
    if path.suffix not in WRITTEN:
        raise InputError(f"{path}: unknown suffix '{path.suffix}'; use {' or '.join(WRITTEN)}.")
    make_folder(path.parent)
    return path


def handcrafted_dictionary() -> dict[str, tuple[str, str, str, str, str]]:
    """Return the name, family, unit, IBSI code and meaning of handcrafted features, by name."""
    text = resources.files(__package__).joinpath("tables/handcrafted.csv").read_text("utf-8")
    return {
        row["name"]: (row["name"], row["family"], row["unit"], row["ibsi_code"], _meaning(row))
        for row in csv.DictReader(text.splitlines())
    }


def _meaning(row: dict[str, str]) -> str:
    words = row["name"].removeprefix(f"{row['family']}_").replace("_", " ")
    return f"{row['family']}: {words}"


def _guarded(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose texts no spreadsheet takes for formulas."""
    texts = table.select_dtypes(include=["object", "string"])
    return table.assign(**texts.map(_guarded_cell))


def _guarded_cell(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell
