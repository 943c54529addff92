"""The parts of a criterion, on torch: base classes, and the messages they pass each other."""

from nearfar.nn.batch import Batch
from nearfar.nn.class_losses import ClassLoss
from nearfar.nn.criterion import Criterion
from nearfar.nn.distances import Distance
from nearfar.nn.element_miners import ElementMiner
from nearfar.nn.labels import Grades, RuledLabels
from nearfar.nn.losses import EmbeddingLoss, Loss
from nearfar.nn.matching import Matched, Matcher, Matches
from nearfar.nn.miners import Miner
from nearfar.nn.reducers import Reducer
from nearfar.nn.selection import IndexSelection, Selection, TripletRule
from nearfar.nn.steps import Stepping
from nearfar.nn.terms import MaterialTerms, Terms, element_terms

__all__ = [
    "Batch",
    "ClassLoss",
    "Criterion",
    "Distance",
    "ElementMiner",
    "EmbeddingLoss",
    "Grades",
    "IndexSelection",
    "Loss",
    "Matched",
    "Matcher",
    "Matches",
    "MaterialTerms",
    "Miner",
    "Reducer",
    "RuledLabels",
    "Selection",
    "Stepping",
    "Terms",
    "TripletRule",
    "element_terms",
]
