"""The README's account of the spec is the models' own."""

from tests.architecture.spec_table import in_readme, spec_table


def test_the_readme_lists_every_field_of_the_spec() -> None:
    assert in_readme() == spec_table(), "run: python -m tests.architecture.spec_table"
