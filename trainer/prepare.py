"""The prepare stage: text to packed rows, shared out over all processes by the source's files, resumable file by file.

Two phases: every unit (a file of a source) is tokenised to shards by the process that it is dealt to; then every domain's shards are
packed, in the source's order, by the process that the domain is dealt to. So the bytes do not depend on how many processes there are.
"""

import hashlib
import logging
import uuid
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from api import keys
from api.domains import DomainWeights
from api.epochs import planned_epochs
from api.results import Prepared, StageResult
from api.spec import Pretokenized
from api.stages import StageKind
from trainer.context import StageContext
from trainer.crew import Crew, Tally
from trainer.deal import deal
from trainer.files import workplace
from trainer.pack import DomainDone, Packer
from trainer.shards import ShardWriter
from trainer.tokenise import Tokeniser
from trainer.tokenizer import Encoder, load_encoder, make_encoder
from trainer.units import SIDES, Plan, Unit, UnitDone, domain_marker, domain_units, make_plan, shard_key, unit_marker

log = logging.getLogger(__name__)


def run(context: StageContext) -> StageResult:
    """Prepare what no earlier attempt, or world of this one, has finished; the result, the same on every rank but for its time."""
    config = context.config
    with workplace(context.cache / "prepare") as work, Crew(context.world) as crew:
        share = _Share(context, work, crew)
        share.tokenise()
        share.pack()
        prepared = share.counted()
    prefix = keys.prepared_prefix(config.experiment_id, config.plan.name)
    return StageResult(
        experiment_id=config.experiment_id,
        stage=config.plan.name,
        kind=StageKind.PREPARE,
        round=config.plan.round,
        attempt=config.attempt,
        digest=config.digest,
        created_at=datetime.now(UTC),
        files={"data": f"{prefix}train/", "validation": f"{prefix}validation/", "tokenizer": _tokenizer_key(context)},
        prepared=prepared,
    )


class _Share:
    """One rank's part in the stage."""

    def __init__(self, context: StageContext, work: Path, crew: Crew) -> None:
        """Rank 0 lists the units and makes the tokenizer; the others wait for both."""
        self._context, self._work = context, work
        self._bucket, self._crew = context.bucket, crew
        self._scratch = _scratch(context)
        plan_key = self._crew.hand_out("plan", self._begin)
        self._plan = Plan.model_validate_json(self._bucket.get(plan_key).data)
        self._encoder = _kept_encoder(context)

    def _begin(self) -> str:
        plan = make_plan(self._context.config, self._bucket, self._context.world.reach)
        if _kept_encoder(self._context) is None and not _is_tokenised(self._context):
            _keep_new_encoder(self._context)
        key = f"{self._scratch}plans/{uuid.uuid4().hex}.json"
        self._bucket.put(key, plan.model_dump_json().encode())
        return key

    def tokenise(self) -> None:
        """The units dealt to this rank; then wait for the others'."""
        units, world = self._plan.units, self._context.world
        tally = Tally(self._crew, self._context.reporter, "tokenising")
        if world.is_first:
            tally.expect(sum(unit.size for unit in units), sum(unit.size for unit in units if unit.done))
        left = [unit for unit in units if not unit.done]
        tokeniser = Tokeniser(self._context.config.spec, self._encoder, self._context.world.reach)
        for index in deal([unit.size for unit in left], world.size)[world.rank]:
            self._tokenise(left[index], tokeniser, tally)
        tally.say()
        self._crew.meet("tokenised", tally.say)

    def _tokenise(self, unit: Unit, tokeniser: Tokeniser, tally: Tally) -> None:
        log.info("tokenising %s for %s", unit.path, unit.domain)
        with ExitStack() as stack:
            writers = {
                side: stack.enter_context(ShardWriter(self._bucket, shard_key(self._scratch, unit, side), self._work)) for side in SIDES
            }
            text_bytes = tokeniser.run(unit, writers, tally.add)
            done = UnitDone(train=writers["train"].finish(), validation=writers["validation"].finish(), text_bytes=text_bytes)
        self._bucket.put(unit_marker(self._scratch, unit), done.model_dump_json().encode())

    def pack(self) -> None:
        """The domains dealt to this rank; then wait for the others'."""
        names, world = self._plan.domains, self._context.world
        packer = Packer(self._context.config, self._bucket, self._work)

        def look() -> None:
            self._crew.look()
            self._context.reporter.moves()

        def say(more: int = 0) -> None:
            self._context.reporter.progress("packing rows", self._crew.count("packed/domains", more), len(names), "domains")

        sizes = [sum(unit.size for unit in self._plan.units_of(name)) for name in names]
        for index in deal(sizes, world.size)[world.rank]:
            say()
            done = packer.run(names[index], self._plan.units_of(names[index]), look)
            self._bucket.put(domain_marker(self._scratch, names[index]), done.model_dump_json().encode())
            self._bucket.delete_prefix(domain_units(self._scratch, names[index]))  # the disk may not hold all of it twice
            say(1)
        self._crew.meet("packed", say)

    def counted(self) -> Prepared:
        """What all of it came to."""
        made = self._crew.hand_out("prepared", lambda: _prepared(self._context, self._encoder).model_dump_json())
        return Prepared.model_validate_json(made)


def _scratch(context: StageContext) -> str:
    return keys.scratch_prefix(context.config.experiment_id, context.config.plan.name)


def _tokenizer_key(context: StageContext) -> str:
    return f"{keys.prepared_prefix(context.config.experiment_id, context.config.plan.name)}tokenizer.json"


def _is_tokenised(context: StageContext) -> bool:
    return isinstance(context.config.spec.tokenizer, Pretokenized)


def _kept_encoder(context: StageContext) -> Encoder | None:
    """The tokenizer that rank 0, or an earlier attempt, has kept; None where there is none, or all is tokenised already."""
    key = _tokenizer_key(context)
    kept, eos = context.bucket.find(key), context.bucket.find(f"{key}.eos")
    return load_encoder(kept.data.decode(), eos.data.decode(), key) if kept is not None and eos is not None else None


def _keep_new_encoder(context: StageContext) -> None:
    context.reporter.progress("training the tokenizer")
    encoder, key = make_encoder(context.config.spec, context.bucket, context.world.reach), _tokenizer_key(context)
    context.bucket.put(key, encoder.to_json().encode())
    context.bucket.put(f"{key}.eos", encoder.eos_token.encode())


def _prepared(context: StageContext, encoder: Encoder | None) -> Prepared:
    spec, scratch = context.config.spec, _scratch(context)
    markers = {name: context.bucket.get(domain_marker(scratch, name)).data for name in spec.domain_names}
    done = {name: DomainDone.model_validate_json(data) for name, data in markers.items()}
    shares = DomainWeights.normalised({name: domain.counts.tokens for name, domain in done.items()})
    fingerprint = hashlib.sha256()
    for name in spec.domain_names:
        fingerprint.update(f"{name}:{done[name].train_sha256}:{done[name].validation_sha256};".encode())
    domains = {
        name: domain.counts.model_copy(
            update={"share": shares[name], "sha256": domain.train_sha256, "validation_sha256": domain.validation_sha256}
        )
        for name, domain in done.items()
    }
    vocab_size = encoder.vocab_size if encoder else spec.tokenizer.vocab_size if isinstance(spec.tokenizer, Pretokenized) else 0
    prepared = Prepared(
        domains=domains,
        token_shares=shares,
        vocab_size=vocab_size,
        eos_id=encoder.eos_id if encoder else -1,
        sequence_length=spec.sequence_length,
        fingerprint=fingerprint.hexdigest(),
    )
    planned_epochs(spec, context.config.siblings, prepared)  # caps that no stage could live with are told now, not after the search
    return prepared
