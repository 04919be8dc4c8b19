"""Every example is a spec that works, and says what it is."""

from pathlib import Path

import pytest

from api.plan import make_plan
from api.spec import parse_spec
from services.cli.specs import read_spec

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path for path in (ROOT / "examples").rglob("*.yaml") if path.name != "values.yaml")  # those are of the chart


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_valid_and_listed(path: Path) -> None:
    spec = parse_spec(read_spec(path))
    assert make_plan(spec).stages
    assert spec.description
    assert f"({path.relative_to(ROOT)})" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", ["ablation", "iterated"])
def test_what_shares_stages_with_the_demo_really_does(name: str) -> None:
    """Same inputs: the demo's results are taken over, so these run what is theirs alone."""
    demo, other = (parse_spec(read_spec(ROOT / "examples" / path)) for path in ("demo/spec.yaml", f"{name}.yaml"))
    shared = {"domains", "tokenizer", "sequence_length"}
    assert demo.model_dump(include=shared) == other.model_dump(include=shared)
    assert demo.models.proxy == other.models.proxy
    assert demo.training.proxy == other.training.proxy
    assert demo.doremi.eta == other.doremi.eta
