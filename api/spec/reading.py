"""From text (YAML or JSON) to plain data, with the line of each value; whatever the text is, and in bounded time.

Only what a spec has a use for is read: no aliases (a few lines of them grow without bound), no tags (they make objects), no deep
nesting, and numbers that are finite and fit 64 bits.
"""

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.cyaml import CParser  # type: ignore[attr-defined]  # its stubs leave out where it comes from
from yaml.reader import ReaderError
from yaml.resolver import Resolver

from api.spec.problem import Problem, join, spec_error

MAX_BYTES = 256 * 1024  # a thousand domains with their paths take half of it
MAX_DEPTH = 32
_CORE = "tag:yaml.org,2002:"
_ESCAPES = re.compile(r"\\\\|\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_ODD_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(frozen=True)
class Document:
    """What was read; `lines` by JSON pointer, from 1."""

    data: Any
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


class _Composer(Composer):
    """Nodes without aliases, tags and deep nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[attr-defined]  # the parser's, which `_Loader` has beside this
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="YAML aliases (*name) are not allowed in a spec", problem_mark=mark)
        if event.tag is not None:
            raise yaml.MarkedYAMLError(problem="YAML tags (!name) are not allowed in a spec", problem_mark=mark)
        if self.depth == MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"it is nested over {MAX_DEPTH} levels deep", problem_mark=mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Loader(_Composer, CParser, Resolver):
    """libyaml's events, a seventh of the time of Python's own; YAML 1.2's core schema: `no` is a string, `1e-3` a number, a date text."""

    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        _Composer.__init__(self)
        Resolver.__init__(self)


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?(?:\.(?:inf|Inf|INF)|Infinity)|\.(?:nan|NaN|NAN)|NaN)$",
        "-+.0123456789IN",  # Infinity and NaN are what programs write into JSON; they are told off as numbers
    ),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(_CORE + _tag, re.compile(_pattern), list(_first))


def read_document(text: str) -> Document:
    """What `text` holds, with the problems of single values and keys.

    Raises:
        SpecError: it is too long, or neither YAML nor JSON.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise spec_error([Problem(pointer="", message="the spec is not UTF-8 text", line=_line(text, error.start))]) from None
    if size > MAX_BYTES:
        raise spec_error([Problem(pointer="", message=f"the spec is over {MAX_BYTES:,} bytes")])
    try:
        node = _Loader(_as_yaml(text)).get_single_node()
    except ReaderError as error:
        message = f"the character U+{error.character:04X} is not allowed in a spec"
        line = text.encode()[: error.position].count(b"\n") + 1
        raise spec_error([Problem(pointer="", message=message, line=line)]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise spec_error([Problem(pointer="", message=_syntax(error, text), line=mark.line + 1 if mark else None)]) from None
    reader = _Reader()
    return Document(reader.value(node, "") if node is not None else None, reader.lines, reader.problems)


def _as_yaml(text: str) -> str:
    """JSON is YAML but for tabs between its values, and in its strings odd characters, unescaped, and rare ones, as two escapes each."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    whole = _ESCAPES.sub(_whole, text)
    return _ODD_IN_YAML.sub(lambda odd: f"\\u{ord(odd[0]):04x}", whole.replace("\t", " "))


def _whole(found: re.Match[str]) -> str:
    """A character's two escapes as one; an escaped backslash as it is."""
    high, low = found[1], found[2]
    return f"\\U{0x10000 + (int(high, 16) - 0xD800) * 0x400 + int(low, 16) - 0xDC00:08x}" if high else found[0]


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    problem = error.problem or "it cannot be read"
    mark = error.problem_mark
    lines = text.split("\n")
    if "tab character" in problem or (mark and lines[min(mark.line, len(lines) - 1)][mark.column : mark.column + 1] == "\t"):
        return "YAML is indented with spaces, not with tabs"
    if "Unicode character escape" in problem:
        return "the text holds half a character (a lone surrogate) or none; write the whole one"
    return problem if problem.endswith(("in a spec", "levels deep")) else f"this is not YAML or JSON: {problem}"


class _Reader:
    """From composed nodes to data, noting lines and problems."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self.problems: list[Problem] = []

    def value(self, node: yaml.Node, pointer: str) -> Any:
        self.lines.setdefault(pointer, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, pointer)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, join(pointer, index)) for index, child in enumerate(node.value)]
        return self._scalar(node, pointer)

    def _mapping(self, node: yaml.MappingNode, pointer: str) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._add(pointer, key_node, "a field's name is a word, not a list or a mapping")
                continue
            key = self._text(key_node, pointer)  # as it is written: a domain may be called 007 or null
            below = join(pointer, key)
            if key in mapping:
                self._add(below, key_node, f"`{key}` stands twice; keep one of them")
                continue
            self.lines[below] = key_node.start_mark.line + 1
            mapping[key] = self.value(value_node, below)
        return mapping

    def _scalar(self, node: yaml.Node, pointer: str) -> Any:
        kind, text = node.tag.removeprefix(_CORE), node.value
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int":
            if len(text) > 20 or abs(int(text)) >= 2**63:  # int() itself refuses thousands of digits
                return self._add(pointer, node, "the number does not fit 64 bits; give a smaller one")
            return int(text)
        if kind == "float":
            number = float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
            return number if math.isfinite(number) else self._add(pointer, node, f"{text} is not a finite number; give one that is")
        return self._text(node, pointer)

    def _text(self, node: yaml.Node, pointer: str) -> str:
        text = str(node.value)
        if "\0" in text:
            self._add(pointer, node, "text must not hold a NUL character")
        return text

    def _add(self, pointer: str, node: yaml.Node, message: str) -> None:
        self.problems.append(Problem(pointer=pointer, message=message, line=node.start_mark.line + 1))
