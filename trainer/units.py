"""The units of a prepare stage: one piece of one domain's source each, tokenised whole by one process, and never again."""

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from api import keys
from api.bucket import Bucket
from api.reach import Reach
from api.spec import ExperimentSpec, Source, ValidationSource
from api.stage_config import StageConfig
from trainer.shards import Shard
from trainer.sources import pieces

Side = Literal["train", "validation"]
SIDES: tuple[Side, Side] = ("train", "validation")


class Unit(BaseModel):
    """A file, or a folder that save_to_disk wrote; of the domain's own source, or of its validation source."""

    domain: str
    source: Side
    path: Path
    size: int
    """Bytes."""
    done: bool = False
    """By an earlier attempt, or an earlier world of this one."""

    @property
    def name(self) -> str:
        """The same as long as the piece is: one that was replaced or repaired is another unit."""
        return hashlib.sha256(f"{self.source}:{self.path}:{self.size}".encode()).hexdigest()[:20]

    def source_of(self, spec: ExperimentSpec) -> Source:
        domain = spec.domains[self.domain]
        validation = domain.validation
        return validation.source if self.source == "validation" and isinstance(validation, ValidationSource) else domain.source


class UnitDone(BaseModel):
    """The marker of a finished unit, written last."""

    train: Shard
    validation: Shard
    text_bytes: int
    """Of UTF-8, both sides; 0 where the source was tokenised."""


class Plan(BaseModel):
    """The work of one world: what is left of the stage."""

    units: list[Unit]
    """Of the domains that are not finished, in the order of their names, of the sources and of the pieces in them."""

    @property
    def domains(self) -> list[str]:
        return list(dict.fromkeys(unit.domain for unit in self.units))

    def units_of(self, domain: str) -> list[Unit]:
        return [unit for unit in self.units if unit.domain == domain]


def make_plan(config: StageConfig, bucket: Bucket, reach: Reach) -> Plan:
    """What the sources hold, less what the scratch folder says is done. Raises DataError where a source has nothing, or is outside of
    `reach`."""
    scratch, spec = keys.scratch_prefix(config.experiment_id, config.plan.name), config.spec
    there = {entry.key for entry in bucket.list(scratch)}
    units = []
    for name in spec.domain_names:
        if domain_marker(scratch, name) in there:
            continue
        domain = spec.domains[name]
        found: list[tuple[Side, Source]] = [("train", domain.source)]
        if isinstance(domain.validation, ValidationSource):
            found.append(("validation", domain.validation.source))
        for side, source in found:
            for piece in pieces(source, name, reach, side):
                unit = Unit(domain=name, source=side, path=piece.path, size=piece.size)
                units.append(unit.model_copy(update={"done": unit_marker(scratch, unit) in there}))
    return Plan(units=units)


def domain_marker(scratch: str, domain: str) -> str:
    return f"{scratch}{domain}.json"


def domain_units(scratch: str, domain: str) -> str:
    """The prefix of a domain's units."""
    return f"{scratch}units/{domain}/"


def unit_marker(scratch: str, unit: Unit) -> str:
    return f"{domain_units(scratch, unit.domain)}{unit.name}.json"


def shard_key(scratch: str, unit: Unit, side: Side) -> str:
    return f"{domain_units(scratch, unit.domain)}{unit.name}.{side}.ids"
