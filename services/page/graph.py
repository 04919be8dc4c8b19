"""Where the stages stand in the drawing of a plan: a column for each length of the way from the start, and an edge a need."""

from dataclasses import dataclass

from api.views import StageView

WIDTH, HEIGHT, GAP_X, GAP_Y, EDGE = 148, 44, 40, 14, 2


@dataclass(frozen=True)
class Node:
    stage: StageView
    x: int
    y: int


@dataclass(frozen=True)
class Graph:
    """All in units of the drawing."""

    nodes: list[Node]
    edges: list[str]
    """Paths of an SVG."""
    width: int
    height: int


def graph(stages: list[StageView]) -> Graph:
    """`stages` in the plan's order, in which each comes after all that it needs."""
    depth: dict[str, int] = {}
    for stage in stages:
        depth[stage.name] = max((depth[need] + 1 for need in stage.needs if need in depth), default=0)
    columns: dict[int, list[StageView]] = {}
    for stage in stages:
        columns.setdefault(depth[stage.name], []).append(stage)
    tallest = max((len(column) for column in columns.values()), default=0)
    height = tallest * (HEIGHT + GAP_Y) - GAP_Y + 2 * EDGE
    nodes = {}
    for number, column in columns.items():
        for row, stage in enumerate(column):  # from the top: an edge that skips columns then has its row to itself more often than not
            nodes[stage.name] = Node(stage, EDGE + number * (WIDTH + GAP_X), EDGE + row * (HEIGHT + GAP_Y))
    shortest = {stage.name: _direct(stage, stages) for stage in stages}
    edges = [_path(nodes[need], nodes[name]) for name, needs in shortest.items() for need in needs]
    return Graph(list(nodes.values()), edges, len(columns) * (WIDTH + GAP_X) - GAP_X + 2 * EDGE, height)


def _direct(stage: StageView, stages: list[StageView]) -> list[str]:
    """Its needs, less those that another need of it waits for already: their edges would say nothing new."""
    needed = {one.name: set(one.needs) for one in stages}
    for one in stages:  # in the plan's order: all that stands before is complete
        for need in one.needs:
            needed[one.name] |= needed.get(need, set())
    return [need for need in stage.needs if need in needed and not any(need in needed[other] for other in stage.needs if other in needed)]


def _path(before: Node, after: Node) -> str:
    left, right = before.x + WIDTH, after.x
    start, end = before.y + HEIGHT // 2, after.y + HEIGHT // 2
    bend = right - GAP_X // 2
    return f"M{left} {start} H{bend - GAP_X // 4} C{bend} {start} {bend} {end} {bend + GAP_X // 4} {end} H{right}"
