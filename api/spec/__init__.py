"""The spec: one model an idea. `parse_spec` is the way in; it names every problem at once."""

from api.spec.compute import Compute, Replicas, StageCompute
from api.spec.document import parse_spec
from api.spec.doremi import Comparison, Doremi, MixtureName, Objective
from api.spec.experiment import ExperimentSpec
from api.spec.models import PRESETS, Model, Models, Shape
from api.spec.problem import Problem
from api.spec.sources import (
    DatasetSource,
    Domain,
    DoremiSource,
    HeldOut,
    JsonlSource,
    NanotronSource,
    ParquetSource,
    Source,
    ValidationSource,
)
from api.spec.tokenizer import FileTokenizer, HubTokenizer, Pretokenized, Tokenizer, TrainedTokenizer
from api.spec.training import (
    Adafactor,
    AdamW,
    CosineSchedule,
    ExponentialSchedule,
    Optimizer,
    Schedule,
    StageTraining,
    Training,
    WarmupStableDecaySchedule,
)

__all__ = [
    "PRESETS",
    "Adafactor",
    "AdamW",
    "Comparison",
    "Compute",
    "CosineSchedule",
    "DatasetSource",
    "Domain",
    "Doremi",
    "DoremiSource",
    "ExperimentSpec",
    "ExponentialSchedule",
    "FileTokenizer",
    "HeldOut",
    "HubTokenizer",
    "JsonlSource",
    "MixtureName",
    "Model",
    "Models",
    "NanotronSource",
    "Objective",
    "Optimizer",
    "ParquetSource",
    "Pretokenized",
    "Problem",
    "Replicas",
    "Schedule",
    "Shape",
    "Source",
    "StageCompute",
    "StageTraining",
    "Tokenizer",
    "TrainedTokenizer",
    "Training",
    "ValidationSource",
    "WarmupStableDecaySchedule",
    "parse_spec",
]
