# The public names of vgg_keras and where they are defined: read by `__init__.py`, which loads each
# on first use, and by type checkers.

from . import callbacks as callbacks
from . import errors as errors
from . import features as features
from . import pipelines as pipelines
from . import saved_models as saved_models
from . import serving as serving
from . import weights as weights
from .architecture import Architecture as Architecture
from .evaluation.evaluate import evaluate as evaluate
from .evaluation.posteriors import make_scorer as make_scorer
from .evaluation.predict import Predicted as Predicted
from .evaluation.predict import predict as predict
from .evaluation.predictions import Predictions as Predictions
from .evaluation.predictions import fuse as fuse
from .evaluation.procedure import Procedure as Procedure
from .models import fully_convolutional as fully_convolutional
from .models import vgg as vgg
from .nets import NETS as NETS
from .recipes import LOCALISATION_RECIPES as LOCALISATION_RECIPES
from .recipes import RECIPES as RECIPES
from .recipes import LocalisationRecipe as LocalisationRecipe
from .recipes import Recipe as Recipe
from .serving import export as export
from .serving import verify as verify
from .trained import TrainedNet as TrainedNet
from .training import train as train
from .version import __version__ as __version__
