"""The maps of the README and of docs/, each made from what it is a map of: modules, routes, transitions, formats, dependencies."""

import ast
import json
import re
import tomllib
from typing import Any

from fastapi.routing import APIRoute
from pydantic import SecretStr

from api.access import MEANINGS, Scope
from api.exports import FORMATS
from api.metrics import OF_SERVICE, OF_TRAINER
from api.stages import LEGAL
from examples.demo.corpus import DOMAINS
from services.access.rights import is_open, needed
from services.app import ROUTERS, create_app
from services.cli.exits import TABLE, Exit
from services.settings import PREFIX, Settings
from tests.architecture.sources import PACKAGES, ROOT, sources

TITLES = {"api": "the contract", "services": "the control plane", "trainer": "the data plane"}


def layout() -> str:
    """A line a module: the first sentence of its docstring."""
    blocks = []
    for package in PACKAGES:
        lines = [f"{package}/  {TITLES[package]}"]
        listed = [source for source in sources(package) if source.path.name != "__init__.py" or ast.get_docstring(source.tree)]
        modules = [(str(source.path.relative_to(package)), first_sentence(ast.get_docstring(source.tree) or "")) for source in listed]
        width = max(len(path) for path, _ in modules)
        blocks.append("\n".join([*lines, *(f"  {path:{width}}  {sentence}" for path, sentence in modules)]))
    return "```text\n" + "\n\n".join(blocks) + "\n```"


def first_sentence(docstring: str) -> str:
    """Up to the first full stop that ends a sentence, on one line."""
    text = " ".join(docstring.partition("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0].rstrip(".")


def rest() -> str:
    """A row a route, in the OpenAPI document's order."""
    never_used: Any = None
    document = create_app(Settings(), never_used, never_used, never_used).openapi()
    lines = ["| method | path | what |", "|---|---|---|"]
    for path, methods in document["paths"].items():
        lines += [f"| {method.upper()} | `{path}` | {operation['summary']} |" for method, operation in methods.items()]
    return "\n".join(lines)


def stages() -> str:
    """The transition table as a diagram."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> blocked"]
    for before, after in LEGAL.items():
        lines += [f"    {before} --> {phase}" for phase in sorted(after, key=list(LEGAL).index)]
        lines += [f"    {before} --> [*]"] if before.terminal else []
    return "\n".join([*lines, "```"])


def exports() -> str:
    """A row a format."""
    lines = ["| `--format` | for | fractions of | media type |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| `{one.name}` | {one.title} | {one.fraction_of} | {one.media_type} |" for one in FORMATS.values())])


def scopes() -> str:
    """A row a scope: what it adds to those before it, as operations that need it."""
    operations: dict[Scope, list[str]] = {scope: [] for scope in Scope}
    for route in (route for module in ROUTERS for route in module.router.routes if isinstance(route, APIRoute) and route.operation_id):
        for method in route.methods:
            if not is_open(route.path):
                operations[needed(method, route.operation_id)].append(f"`{route.operation_id}`")
    lines = ["| scope | what it may do, beside what those above it may | operations |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| `{scope}` | {meaning} | {', '.join(operations[scope])} |" for scope, meaning in MEANINGS.items())])


def settings() -> str:
    """What an operator chooses: the service's environment."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        shown = "" if field.default in ("", None, {}, (), SecretStr("")) else f"`{field.default}`"
        lines.append(f"| `{PREFIX}{name.upper()}` | {shown} | {meaning} |")
    return "\n".join(lines)


def metrics() -> str:
    """A row a metric."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for one in (*OF_SERVICE.values(), *OF_TRAINER.values()):
        lines.append(f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.help} |")
    return "\n".join(lines)


def texts() -> str:
    """What the demo's domains are made of."""
    rows = [f"| `{one.name}` | {one.what} | {one.archive.rstrip('-')} | {one.licence} | {one.megabytes:g} MB |" for one in DOMAINS]
    return "\n".join(["| domain | what it is | package | licence | at most |", "|---|---|---|---|---|", *rows])


def dependencies() -> str:
    """A row a direct dependency, with the reason that stands beside it in pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    groups = {"all": project["dependencies"], **project["optional-dependencies"]}
    reasons = _reasons(text)
    lines = ["| package | pin | for | why |", "|---|---|---|---|"]
    for group, wanted in groups.items():
        for requirement in wanted:
            name, pin = re.split(r"(?=[<>=!~])", requirement, maxsplit=1) if re.search("[<>=!~]", requirement) else (requirement, "")
            lines.append(f"| {name} | {f'`{pin}`' if pin else 'any'} | {group} | {reasons[group, requirement]} |")
    return "\n".join(lines)


def _reasons(text: str) -> dict[tuple[str, str], str]:
    """(group, requirement) to its comment: tomllib drops comments, so the lines themselves are read."""
    found, group = {}, ""
    for line in text.splitlines():
        if opened := re.fullmatch(r"(\w+) = \[", line):
            group = "all" if opened[1] == "dependencies" else opened[1]
        elif stated := re.fullmatch(r'    "([^"]+)",?\s*(?:# (.*))?', line):
            found[group, stated[1]] = stated[2] or ""
    return found


def dashboards() -> str:
    """A row a row of each of Grafana's dashboards, with the panels in it."""
    lines = ["| dashboard | row | panels |", "|---|---|---|"]
    for path in sorted((ROOT / "charts/solfa/files/dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        rows: list[tuple[str, list[str]]] = []
        for panel in board["panels"]:
            if panel["type"] == "row":
                rows.append((panel["title"], []))
            else:
                rows[-1][1].append(panel["title"])
        lines += [f"| {board['title'].removeprefix('Solfa / ')} | {row} | {'; '.join(panels)} |" for row, panels in rows]
    return "\n".join(lines)


def exits() -> str:
    """A row an exit code of the command, as its help says them."""
    said = re.findall(r"(\d+) ([^;]+?)[;.](?= |$)", TABLE)
    assert [int(code) for code, _ in said] == list(Exit)
    return "\n".join(["| code | meaning |", "|---|---|", *(f"| {code} | {meaning} |" for code, meaning in said)])
