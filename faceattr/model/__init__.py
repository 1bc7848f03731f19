"""The network: VGG16, its preprocessing inside, one softmax head per task."""

from faceattr.model.build import SHARINGS, build
from faceattr.model.heads import POOLINGS
from faceattr.model.learning import TRUNK, head_names, open_from
from faceattr.model.transfer import transfer, vgg16_of
from faceattr.model.trunk import TRUNKS, convolutions

__all__ = [
    "POOLINGS",
    "SHARINGS",
    "TRUNK",
    "TRUNKS",
    "build",
    "convolutions",
    "head_names",
    "open_from",
    "transfer",
    "vgg16_of",
]
