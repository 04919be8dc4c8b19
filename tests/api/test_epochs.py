"""Planned epochs: what the stages of a spec would make of the data, as the sampler then does it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.domains import DomainWeights
from api.epochs import planned_epochs, row_limit, shared_out
from api.errors import DataError
from api.plan import make_plan
from api.results import Prepared, PreparedDomain
from tests.builders import make_spec
from trainer.sampler import MixtureSampler

DRAWN = st.tuples(st.integers(1, 60), st.floats(0.01, 1), st.none() | st.floats(0.1, 4))  # rows, share, cap
ROWS = {"books": 100, "code": 50, "web": 1000}


def prepared() -> Prepared:
    counts = dict.fromkeys(("documents", "validation_documents", "validation_tokens", "validation_rows"), 1)
    total = sum(ROWS.values())
    domains = {name: PreparedDomain(tokens=33 * rows, rows=rows, share=rows / total, **counts) for name, rows in ROWS.items()}
    shares = DomainWeights.normalised(ROWS)
    return Prepared(domains=domains, token_shares=shares, vocab_size=512, eos_id=0, sequence_length=32, fingerprint="")


def test_every_stage_whose_mixture_is_known_has_its_epochs() -> None:
    spec = make_spec(training={"proxy": {"steps": 30, "global_batch": 10}})
    epochs = planned_epochs(spec, make_plan(spec).stages, prepared())
    assert set(epochs) == {"reference", "proxy", "baseline-reference", "baseline-uniform"}  # what is averaged is not known beforehand
    assert epochs["proxy"] == pytest.approx({name: 100 / rows for name, rows in ROWS.items()})
    assert epochs["reference"] == pytest.approx(dict.fromkeys(ROWS, 300 / 1150))


def test_a_cap_is_kept_and_what_is_over_goes_to_the_others_or_is_refused() -> None:
    domains = {name: {"source": {"type": "jsonl", "paths": ["/x"]}} for name in ROWS}
    domains["code"]["max_epochs"] = 0.5
    spec = make_spec(training={"proxy": {"steps": 30, "global_batch": 10}}, domains=domains)
    proxy = planned_epochs(spec, make_plan(spec).stages, prepared())["proxy"]
    assert proxy == pytest.approx({"code": 0.5, "books": 137.5 / 100, "web": 137.5 / 1000})

    for domain in domains.values():
        domain["max_epochs"] = 0.2
    spec = make_spec(training={"proxy": {"steps": 30, "global_batch": 10}}, domains=domains)
    with pytest.raises(DataError, match=r"reference would draw 300 sequences, but max_epochs allows 230; raise a cap"):
        planned_epochs(spec, make_plan(spec).stages, prepared())


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.floats(0.01, 1), st.none() | st.floats(0.1, 4)), min_size=1, max_size=6), st.integers(1, 40)
)
def test_the_plan_is_what_the_sampler_does(domains: list[tuple[int, float, float | None]], batch: int) -> None:
    names = [f"d{number}" for number in range(len(domains))]
    rows, shares, caps = zip(*domains, strict=True)
    weights = DomainWeights.normalised(dict(zip(names, shares, strict=True)))
    limits = {name: row_limit(n, cap) for name, n, cap in zip(names, rows, caps, strict=True)}
    drawn = shared_out(weights, batch, limits)
    if sum(drawn.values()) < batch - 0.5:
        with pytest.raises(DataError):
            MixtureSampler(rows, 0, caps).draw(np.array(weights.vector(names)), batch)
        return
    domain_ids, _ = MixtureSampler(rows, 0, caps).draw(np.array(weights.vector(names)), batch)
    counts = np.bincount(domain_ids, minlength=len(names))
    assert np.abs(counts - [drawn[name] for name in names]).max() < 1 + 1e-9
