"""The house rules that no linter checks: sizes of modules and functions, who reads the environment, what pure modules touch."""

import ast
import importlib.metadata
import statistics
from collections.abc import Iterator

import pytest

from tests.architecture.sources import PACKAGES, ROOT, Function, Source, sources

LONGEST_MODULE, USUAL_MODULE, LONGEST_FUNCTION, MOST_PARAMETERS = 400, 150, 60, 6
VAGUE = {"utils", "util", "common", "helpers", "helper", "misc"}

# The only readers of the environment. The supervisor is a program of its own (standard library only): it reads no setting, and hands
# what it was given on to the attempt's processes.
ENVIRONMENT = {"services.settings", "trainer.world", "services.launch.supervisor"}

# No clock, no randomness, no I/O: what they answer follows from what they are given.
PURE = {
    *("api.domains", "api.experiment", "api.keys", "api.plan", "api.results", "api.replay", "api.stage_config", "api.stages", "api.views"),
    *("services.decide", "services.inputs", "services.observation", "services.retry", "services.transition"),
    *("services.launch.appdef", "services.launch.cluster", "services.launch.phases"),
    *("trainer.doremi", "trainer.sampler"),
}
PURE_PACKAGES = ("api.exports", "api.spec")
IMPURE = {
    *("asyncio", "glob", "io", "multiprocessing", "os", "pathlib", "random", "secrets", "shutil", "signal", "socket", "subprocess"),
    *("sys", "tempfile", "threading", "time", "urllib", "uuid", "httpx", "obstore", "anyio", "sqlalchemy"),
    *("numpy.random", "torch.random", "torch.distributed", "services.store.sql", "services.store.database", "api.bucket", "api.client"),
}
CLOCKS = {"now", "utcnow", "today", "monotonic", "perf_counter"}

EVERY = sources()
OF_TESTS = sources("tests")


@pytest.mark.parametrize("source", [*EVERY, *OF_TESTS], ids=lambda source: source.name)
def test_a_module_is_short_and_says_why_it_exists(source: Source) -> None:
    assert len(source.text.splitlines()) <= LONGEST_MODULE
    assert source.path.stem not in VAGUE
    assert ast.get_docstring(source.tree) or not source.text.strip(), "it opens without a docstring"


def test_the_median_module_is_a_screen_or_two() -> None:
    assert statistics.median(len(source.text.splitlines()) for source in EVERY) <= USUAL_MODULE


def test_functions_are_short_and_take_few_parameters() -> None:
    """Of typer's commands the parameters are the options; a signature is TorchX's; a migration is one list of tables."""
    long = {f"{source.name}.{one.name}" for source in EVERY for one in source.functions() if _lines(one) > LONGEST_FUNCTION}
    assert long == {"services.store.migrations.versions.records_0001.upgrade"}
    wide = {f"{source.name}.{one.name}" for source in EVERY for one in source.functions() if len(_parameters(one)) > MOST_PARAMETERS}
    assert {name for name in wide if not name.startswith("services.cli.")} == {"services.launch.scheduler.log_iter"}


def _lines(function: Function) -> int:
    return (function.end_lineno or 0) - function.lineno + 1


def _parameters(function: Function) -> list[str]:
    given = function.args
    return [one.arg for one in [*given.posonlyargs, *given.args, *given.kwonlyargs] if one.arg not in ("self", "cls")]


def test_the_environment_is_read_in_one_module_a_plane() -> None:
    assert {source.name for source in EVERY if list(_environment_reads(source))} == ENVIRONMENT


def _environment_reads(source: Source) -> Iterator[ast.AST]:
    """os.environ, os.getenv and their like, and an option of typer's that takes its value from a variable."""
    for node in ast.walk(source.tree):
        attribute = isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv")
        name = isinstance(node, ast.alias) and node.name in ("environ", "environb", "getenv")
        option = isinstance(node, ast.keyword) and node.arg == "envvar"
        if attribute or name or option:
            yield node


def test_pure_modules_touch_nothing() -> None:
    pure = [source for source in EVERY if source.name in PURE or source.name.startswith(PURE_PACKAGES)]
    assert {source.name for source in pure} >= PURE, "a module of the list is gone"
    impure = {source.name: sorted(touched) for source in pure if (touched := _touched(source))}
    assert impure == {}


def _touched(source: Source) -> set[str]:
    names = {name for name in source.imports() if any(name == one or name.startswith(f"{one}.") for one in IMPURE)}
    calls = {node.func for node in ast.walk(source.tree) if isinstance(node, ast.Call)}
    named = {call.attr if isinstance(call, ast.Attribute) else call.id for call in calls if isinstance(call, ast.Attribute | ast.Name)}
    return names | (named & (CLOCKS | {"open", "input", "print"}))


def test_only_the_reconciler_launches() -> None:
    """Requests record, loops act: a route, or a use case that it calls, starts and ends nothing."""
    callers = {
        source.name
        for source in sources("services")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_an_effect_of_the_cluster(node.func)
    }
    assert callers == {"services.reconciler", "services.tidy"}


def _is_an_effect_of_the_cluster(call: ast.Attribute) -> bool:
    return call.attr in ("launch", "cancel", "remove") and ast.unparse(call.value).removeprefix("self.").lstrip("_").endswith("cluster")


def test_the_three_packages_belong_to_this_distribution_alone() -> None:
    owners = importlib.metadata.packages_distributions()
    assert {package: owners[package] for package in PACKAGES} == {package: ["solfa"] for package in PACKAGES}
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == {*PACKAGES, "tests"}
