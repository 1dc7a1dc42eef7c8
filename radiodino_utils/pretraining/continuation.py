"""What a run from a trained start has besides: its frozen start, and checks of the drift."""

from copy import deepcopy

import numpy as np
import torch

from ..backbones.registry import find_model
from ..core.extras import extra
from .corpus import Corpus
from .drift import Drift
from .plan import Plan
from .separation import held_back
from .start import start_transformer

with extra("train"):
    from lightning.fabric import Fabric


class Continuation:
    """The frozen start of a run, its held-out images, and the last backbone within the bounds.

    Args:
        plan: What to train, from a start.
        corpus: Images.

    Attributes:
        start: Frozen vision transformer.
        corpus: The images without those that are held out.
        kept: Vision transformer at the last check within the bounds; at first the start.
        end: Why the run has ended before its last step, or nothing.

    Raises:
        InputError: If the start is no vision transformer with a class token.
    """

    def __init__(self, plan: Plan, corpus: Corpus) -> None:
        assert plan.start is not None  # the caller has seen to it
        self.backbone, self.config = plan.start, plan.config
        self.start = start_transformer(plan.start).requires_grad_(False)
        self.kept, self.corpus, self.end = deepcopy(self.start), corpus, ""
        self._images: list[np.ndarray] = []
        if self.config.held_out:
            count = min(self.config.held_out, len(corpus) // 5)
            self.corpus, self._images = held_back(corpus, count, seed=plan.seed)

    @property
    def facts(self) -> dict[str, object]:
        """What is known of the start, for `run.json` and the card."""
        name, source = self.backbone.name, self.backbone.source
        entry = find_model(name)
        return {
            "name": source if name.startswith("file:") else name,  # without the folder
            "source": source,
            "licence": entry.licence if entry else "not stated",
            "fingerprint": self.backbone.fingerprint,
            "patch_size": self.backbone.patch_size,
            "held_out": len(self._images),
        }

    def set_up(self, fabric: Fabric) -> None:
        """Move the networks to the device, and measure the start."""
        self.start, self.kept = fabric.to_device(self.start), fabric.to_device(self.kept)
        self._drift = None
        if self._images:
            self._drift = Drift(self.start, self.backbone.preprocessing, self._images, self.config)

    def is_due(self, step: int) -> bool:
        """Return whether a step ends one of the parts of the run that are checked."""
        done = [count * self.config.checks // self.config.steps for count in (step - 1, step)]
        return done[0] < done[1]

    def check(self, vit: torch.nn.Module) -> dict[str, float]:
        """Keep a vision transformer within the bounds, or end the run.

        Returns:
            Returned by `Drift`; empty without held-out images.
        """
        values: dict[str, float] = {}
        if self._drift:
            values = self._drift(vit)
            self.end = self._drift.reason_to_stop(values)
        if not self.end:
            self.kept.load_state_dict(vit.state_dict())
        return values
