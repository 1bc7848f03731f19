"""The network: VGG16, its preprocessing inside, one softmax head per task."""

from faceattr.model.build import POOLINGS, SHARINGS, build, feature_map, head, pool
from faceattr.model.learning import TRUNK, head_names, unfreeze_from
from faceattr.model.vgg16 import TRUNKS, convolutions, shared_name, with_owner_renamed
from faceattr.model.weights import measure_norms, transfer, vgg16_of

__all__ = [
    "POOLINGS",
    "SHARINGS",
    "TRUNK",
    "TRUNKS",
    "build",
    "convolutions",
    "feature_map",
    "head",
    "head_names",
    "measure_norms",
    "pool",
    "shared_name",
    "transfer",
    "unfreeze_from",
    "vgg16_of",
    "with_owner_renamed",
]
