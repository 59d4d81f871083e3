"""Spiking networks with two input streams (static and event).

Numba and other compilers are imported when the first layer runs on them, not before.
"""

from spikebridge.models import nmnist, resnet, scnn, speck, vgg  # noqa: F401  (they register themselves)
from spikebridge.models.build import NETWORKS, build_model
from spikebridge.models.errors import ModelError
from spikebridge.models.features import FEATURES
from spikebridge.models.network import TransferNetwork
from spikebridge.models.output import TransferOutput
from spikebridge.models.surrogates import SURROGATES

__all__ = ["FEATURES", "NETWORKS", "SURROGATES", "ModelError", "TransferNetwork", "TransferOutput", "build_model"]
