"""The chart's values, their schema and the table of them are one thing, written by charts/values.py."""

import json
import re
import runpy
from pathlib import Path

import pytest
import yaml

from api.spec import parse_spec
from tests.charts.rendering import CHART, ROOT

GENERATOR = runpy.run_path(str(ROOT / "charts" / "values.py"))
GENERATED: dict[Path, str] = GENERATOR["generated"]()


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_a_generated_file_is_what_its_source_says(path: Path) -> None:
    assert path.read_text() == GENERATED[path], "run: python charts/values.py"


def test_the_schema_is_strict_at_every_level() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    groups = [schema, *schema["$defs"].values()]
    assert all(group["additionalProperties"] is False for group in groups)


def test_every_value_is_described_and_used_by_a_template() -> None:
    templates = "\n".join(path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file())
    for path, description, _ in GENERATOR["fields"](GENERATOR["Values"]):
        assert description, path
        assert re.search(rf"\.{path.rpartition('.')[2]}\b", templates), f"{path} is used nowhere"


def test_the_defaults_are_those_of_the_source() -> None:
    assert yaml.safe_load((CHART / "values.yaml").read_text()) == GENERATOR["Values"]().model_dump(by_alias=True)


def test_the_example_of_a_spec_is_one() -> None:
    assert parse_spec((ROOT / "examples" / "cluster" / "spec.yaml").read_text()).compute.default.gpus == 8
