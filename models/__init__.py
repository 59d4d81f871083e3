"""Spiking networks with two input streams (static and event).

Numba and other compilers are imported when the first layer runs on them, not before.
"""

from models import nmnist, resnet, scnn, vgg  # noqa: F401  (they register themselves)
from models.build import NETWORKS, build_model
from models.errors import ModelError
from models.features import FEATURES
from models.network import TransferNetwork
from models.output import TransferOutput
from models.surrogates import SURROGATES

__all__ = ["FEATURES", "NETWORKS", "SURROGATES", "ModelError", "TransferNetwork", "TransferOutput", "build_model"]
