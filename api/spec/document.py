"""From the text of a spec (YAML or JSON) to an ExperimentSpec, or to every problem at once with its pointer and line."""

from pydantic import ValidationError

from api.spec.consistency import inconsistencies
from api.spec.experiment import ExperimentSpec
from api.spec.problem import Problem, spec_error
from api.spec.reading import Document, read_document
from api.spec.sentences import to_problem


def parse_spec(text: str) -> ExperimentSpec:
    """The spec in `text`.

    Raises:
        SpecError: with `extra["problems"]`, a list of Problem as mappings: all of them, not only the first. It raises nothing else,
            whatever the text is.
    """
    document = read_document(text)
    if not isinstance(document.data, dict):
        raise spec_error([Problem(pointer="", message="a spec is a mapping of fields, such as `name:` and `domains:`", line=1)])
    problems = list(document.problems)
    spec = None
    try:
        spec = ExperimentSpec.model_validate(document.data)
    except ValidationError as error:
        said = {problem.pointer for problem in problems}
        found = [to_problem(detail) for detail in error.errors(include_url=False) if detail["loc"]]  # of the whole: below
        problems += [problem for problem in found if problem.pointer not in said]
        problems += [Problem(pointer=at, message=message, suggestion=near) for at, message, near in inconsistencies(document.data)]
    if problems or spec is None:
        raise spec_error([_with_line(problem, document) for problem in problems])
    return spec


def _with_line(problem: Problem, document: Document) -> Problem:
    """With the line of the value; of what is missing, the line of what it is missing in."""
    at = problem.pointer
    while at not in document.lines:
        at = at.rpartition("/")[0]
    return problem if problem.line else problem.model_copy(update={"line": document.lines[at]})
