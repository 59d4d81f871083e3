"""Static images first, then fine-tuning on events: the same network, head and number of steps throughout.

The images go through the event stream, so that its head is the one that is pretrained. They are drawn from the whole
pool, whatever the recordings at hand show; the fine-tuning sees what `event_only` sees.
"""

from __future__ import annotations

from spikebridge.train.data.batches import Batch, static_stream
from spikebridge.train.methods import Inputs, Method, make_inputs, method
from spikebridge.train.schedules import pretraining_steps


@method
class Pretrain(Method):
    """Classification of images up to `pretrain_share` of the run, of events from there on."""

    needs_static = True
    draw_from_pool = True
    capturable = True

    def replacement_probability(self, step: int) -> float:
        """Return 0 in the steps of images, then 1."""
        return float(step >= pretraining_steps(self.steps, self.settings.pretrain_share))

    def phase(self, step: int) -> int:
        """Return 0 in the steps of images, then 1."""
        return int(self.replacement_probability(step))

    def inputs(self, batch: Batch, step: int) -> Inputs:
        """Return images with their own labels, repeated over time, or events."""
        if self.replacement_probability(step):
            return make_inputs(batch, step, static=None, event=batch.events)
        assert batch.image_labels is not None
        still = static_stream(batch, 0.0)
        return Inputs(batch, step, None, still, batch.image_labels, batch.dropout_seeds)
