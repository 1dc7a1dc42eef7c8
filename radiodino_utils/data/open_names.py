"""Names that hold a path, such as `folder:PATH` and `study=dicom:PATH?slices=3`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qsl, quote

from ..core.errors import InputError, unknown_name

KINDS = ("npz", "folder", "dicom", "masks", "volumes")
UNLABELLED = "unlabelled"  # the class of images without labels, and `labels=` of such a dataset
_NAME = re.compile(
    rf"(?:(?P<alias>[\w.-]+)=)?(?P<kind>{'|'.join(KINDS)}):(?P<path>.+?)"
    r"(?:\?(?P<options>\w+=.*))?"
)


@dataclass(frozen=True)
class OpenName:
    """Parts of an open name `ALIAS=KIND:PATH?OPTION=VALUE&...`.

    Attributes:
        kind: One of `KINDS`.
        path: Path as written.
        options: Values by option.
        alias: Name of the dataset in tables and figures; empty takes the whole text.
    """

    kind: str
    path: str
    options: dict[str, str] = field(default_factory=dict)
    alias: str = ""

    def __str__(self) -> str:
        pairs = [f"{name}={quote(value, safe='/,:')}" for name, value in self.options.items()]
        alias = f"{self.alias}=" if self.alias else ""
        return f"{alias}{self.kind}:{self.path}{'?' if pairs else ''}{'&'.join(pairs)}"

    @property
    def root(self) -> Path:
        """The path, with the home folder in place of `~`."""
        return Path(self.path).expanduser()

    @property
    def labels(self) -> Path | None:
        """The list of labels that the options name."""
        text = self.options.get("labels", UNLABELLED)
        return None if text == UNLABELLED else Path(text).expanduser()

    @property
    def is_unlabelled(self) -> bool:
        """Whether the options say that there are no labels."""
        return self.options.get("labels") == UNLABELLED

    @property
    def mask_folders(self) -> tuple[Path, Path]:
        """The folders of the images and of their masks."""
        if "images" in self.options:
            return Path(self.options["images"]).expanduser(), self.root
        return self.root / "images", self.root / "masks"

    def paths(self) -> list[str]:
        """Return every path in the name, as written."""
        named = [self.options[name] for name in ("labels", "images") if name in self.options]
        tested = parse_open_name(self.test) if self.test else None
        elsewhere = tested.paths() if tested else []
        return [self.path, *(path for path in named if path != UNLABELLED), *elsewhere]

    @property
    def test(self) -> str:
        """The open name of the external test set; empty for none."""
        text = self.options.get("test", "")
        return text if not text or parse_open_name(text) else f"{self.kind}:{text}"

    def without_test(self) -> "OpenName":
        """Return the name without its external test set."""
        return replace(self, options={k: v for k, v in self.options.items() if k != "test"})

    def require_options(self, known: Iterable[str]) -> None:
        """Check the options.

        Raises:
            InputError: If one is not among the known ones.
        """
        for option in self.options:
            if option not in (known := tuple(known)):
                if not known:
                    raise InputError(f"{self}: {self.kind}: takes no option; leave it out.")
                raise unknown_name(f"option of {self.kind}:", option, known)


def parse_open_name(text: str) -> OpenName | None:
    """Return the parts of an open name, or `None` for any other text."""
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    options = dict(parse_qsl(match["options"] or "", keep_blank_values=True))
    return OpenName(match["kind"], match["path"], options, match["alias"] or "")
