# Every name of `aedr_jax.api` and where it lies, once, as in the package's own stub.

from .comparison import Evaluated as Evaluated
from .comparison import evaluate as evaluate
from .datasets import Scores as Scores
from .datasets import attribute_dataset as attribute_dataset
from .decisions import Attributed as Attributed
from .decisions import attribute as attribute
from .decisions import calibrate as calibrate
from .decisions import load_calibrations as load_calibrations
from .inventory import Inventory as Inventory
from .inventory import ModelRecord as ModelRecord
from .inventory import models as models
from .making import Demonstrated as Demonstrated
from .making import convert as convert
from .making import convert_pickles as convert_pickles
from .making import demo as demo
from .making import generate as generate
from .scores import Counts as Counts
from .scores import Progress as Progress
from .scores import Run as Run
from .scores import Setup as Setup
from .scores import open_source as open_source
from .scores import score as score
from .scores import score_dataset as score_dataset
