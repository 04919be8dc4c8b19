"""The OpenAPI document: a golden file that a reviewer reads, and no gap in it."""

import json
from typing import Any

import pytest

from api.errors import SolfaError
from api.exports import FORMATS
from services.problems import EXAMPLES
from tests.reference import assert_golden
from tests.services.running import Running


@pytest.fixture(scope="module")
def document(gallery: Running) -> dict[str, Any]:
    return dict(gallery.http.get("/openapi.json").json())


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"{method} {path}", operation) for path, methods in document["paths"].items() for method, operation in methods.items()]


def test_it_is_the_one_that_was_reviewed(document: dict[str, Any]) -> None:
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    assert_golden("openapi.json", text)


def test_every_operation_is_named_explained_and_has_its_failures(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert operation["operationId"].isidentifier(), name
        assert operation["summary"], name
        assert all(answer.get("description") != "Successful Response" for answer in operation["responses"].values()), name
        if "{experiment}" in name:
            assert {"404", "422", "500", "503"} <= set(operation["responses"]), name
        if operation.get("parameters"):
            assert "422" in operation["responses"], name
        for parameter in operation.get("parameters", ()):
            described = {**parameter["schema"], **parameter}
            assert described.get("description") or parameter["name"] in ("limit", "format"), f"{name}: {parameter['name']}"
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(ids) == len(set(ids))


def test_every_failure_is_a_problem_document_with_an_example(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for status in (status for status in operation["responses"] if status >= "400"):
            assert operation["responses"][status] == {"$ref": f"#/components/responses/Problem{status}"}, name
    for status in EXAMPLES:
        content = document["components"]["responses"][f"Problem{status}"]["content"]
        assert list(content) == ["application/problem+json"]
        assert content["application/problem+json"]["example"]["status"] == status


def test_every_error_of_the_tree_that_a_request_can_meet_is_documented_somewhere(document: dict[str, Any]) -> None:
    def tree(root: type[SolfaError]) -> set[int]:
        return {root.status}.union(*(tree(below) for below in root.__subclasses__()))

    assert tree(SolfaError) <= set(EXAMPLES)
    used = {int(status) for _, operation in operations(document) for status in operation["responses"] if status >= "400"}
    assert used == set(EXAMPLES)


def test_a_spec_is_described_field_by_field(document: dict[str, Any]) -> None:
    content = document["paths"]["/v1/experiments"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/yaml", "application/json"}
    spec = document["components"]["schemas"]["ExperimentSpec"]
    assert all(field.get("description") for field in spec["properties"].values())
    assert spec["additionalProperties"] is False


def test_every_export_format_and_its_media_type_is_listed(document: dict[str, Any]) -> None:
    operation = document["paths"]["/v1/experiments/{experiment}/weights"]["get"]
    chosen = next(parameter for parameter in operation["parameters"] if parameter["name"] == "format")
    assert chosen["schema"]["enum"] == list(FORMATS)
    assert set(operation["responses"]["200"]["content"]) == {export.media_type for export in FORMATS.values()} | {"application/json"}
