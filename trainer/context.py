"""What every stage is run with."""

from dataclasses import dataclass
from pathlib import Path

from api.bucket import Bucket
from api.stage_config import StageConfig
from trainer.report import Reporter
from trainer.world import World


@dataclass(frozen=True)
class StageContext:
    """One attempt: its input, its bucket, its place among the processes, and where it reports."""

    config: StageConfig
    bucket: Bucket
    world: World
    reporter: Reporter
    cache: Path
