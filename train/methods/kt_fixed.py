"""Knowledge transfer without the known defects of the published settings.

What differs from `kt`, each for a reason, and each a setting of the recipe by which `kt` can have it alone:

- `cka = "debiased"`: the biased estimate is near 1 for any two wide sets of features, so there is little to align.
- `feature = "before_reset"`: the reset erases the potential of just the neurons that fired.
- `statistics = "domain"`: running statistics of BatchNorm that mix both domains fit neither.
- `step_weights = "normalized"`: the published weights can switch the classification of events off.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from spikebridge.train.config.settings import TrainSettings
from spikebridge.train.methods import method
from spikebridge.train.methods.kt import KnowledgeTransfer

FIXES = {"cka": "debiased", "feature": "before_reset", "statistics": "domain", "step_weights": "normalized"}


@method
class KnowledgeTransferFixed(KnowledgeTransfer):
    """`kt` with `FIXES` wherever a recipe says what was published; what it says otherwise stays."""

    capturable = True

    @classmethod
    def complete(cls, settings: TrainSettings) -> TrainSettings:
        """Return the settings with `FIXES`; without regularisation there are no weights of steps to fix."""
        published = {field.name: field.default for field in dataclasses.fields(settings)}
        fixes: dict[str, Any] = {
            name: value for name, value in FIXES.items() if getattr(settings, name) == published[name]
        }
        if not settings.regularization:
            fixes.pop("step_weights", None)
        return dataclasses.replace(settings, **fixes)
