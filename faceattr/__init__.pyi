"""The public names for editors and type checkers, which do not follow those that come when used."""

from faceattr.auditing.audit import audit as audit
from faceattr.data.label_map import LabelMap as LabelMap
from faceattr.detection.base import Face as Face
from faceattr.evaluation.evaluate import evaluate as evaluate
from faceattr.exporting.export import export as export
from faceattr.images.crop import CropRule as CropRule
from faceattr.images.crop import crop as crop
from faceattr.images.load import load_image as load_image
from faceattr.images.load import read_image as read_image
from faceattr.inference.batch import analyze as analyze
from faceattr.inference.label import label as label
from faceattr.inference.predictor import FaceAttributes as FaceAttributes
from faceattr.inference.results import DescribedFace as DescribedFace
from faceattr.inference.results import Prediction as Prediction
from faceattr.model.file import Description as Description
from faceattr.model.file import load, save
from faceattr.tasks import AGE_GROUP as AGE_GROUP
from faceattr.tasks import EXPRESSION as EXPRESSION
from faceattr.tasks import GENDER as GENDER
from faceattr.tasks import Task as Task
from faceattr.training.config import FINETUNE as FINETUNE
from faceattr.training.config import FROZEN as FROZEN
from faceattr.training.config import SCRATCH as SCRATCH
from faceattr.training.config import Augmentation as Augmentation
from faceattr.training.config import Network as Network
from faceattr.training.config import Phase as Phase
from faceattr.training.config import Settings as Settings
from faceattr.training.config import TaskSampling as TaskSampling
from faceattr.training.heads import edit_heads as edit_heads
from faceattr.training.new_heads import NewHeads as NewHeads
from faceattr.training.train import train as train

__version__: str
load_model = load
save_model = save
