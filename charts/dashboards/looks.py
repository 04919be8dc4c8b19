"""How a panel of each kind is drawn: everything is said that Grafana would fill in by a default, such as red from 80 on."""

from collections.abc import Callable
from functools import singledispatch

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, statetimeline, table, timeseries, trend
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BarGaugeValueMode,
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TableCellHeight,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from panels import COLORS, STEP, Kind, Panel

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
SCRAPES = "30s"
"""Between scrapes: the chart puts its own `monitoring.interval` there, so that a rate's window holds enough of them."""
LAST = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
Built = timeseries.Panel | trend.Panel | stat.Panel | bargauge.Panel | statetimeline.Panel | table.Panel
BUILDERS: dict[Kind, Callable[[], Built]] = {
    "lines": timeseries.Panel,
    "stack": timeseries.Panel,
    "number": stat.Panel,
    "bars": bargauge.Panel,
    "states": statetimeline.Panel,
    "steps": trend.Panel,
    "shares": trend.Panel,
    "table": table.Panel,
}
INSTANT = ("number", "bars", "table")
STACKED = ("stack", "shares")


def panel(one: Panel, number: int) -> Built:
    """As Grafana draws it."""
    made = BUILDERS[one.kind]()
    made.id(number).title(one.title).description(one.description).unit(one.unit).datasource(SOURCE).no_value(one.empty)
    made.span(one.width).height(one.height)
    if one.kind in ("number", "bars"):
        made.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        made.thresholds(levels(one.levels))
    else:
        made.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
        made.thresholds(levels(((None, "blue"),)))
    if one.least is not None:
        made.min(one.least)
    if one.most is not None:
        made.max(one.most)
    if one.decimals is not None:
        made.decimals(one.decimals)
    draw(made, one)
    for place, (expr, legend) in enumerate(one.queries):
        query = prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(chr(65 + place)).datasource(SOURCE).interval(SCRAPES)
        if one.kind == "table":
            query.format(PromQueryFormat.TABLE)
        made.with_target(query.instant() if one.kind in INSTANT else query.range())
    return made


def levels(steps: tuple[tuple[float | None, str], ...]) -> dashboard.ThresholdsConfig:
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps([Threshold(value=value, color=color) for value, color in steps])


@singledispatch
def draw(made: Built, one: Panel) -> None:
    raise TypeError(f"no panel is drawn as {type(made).__name__}")


@draw.register(timeseries.Panel)
@draw.register(trend.Panel)
def graph(made: timeseries.Panel | trend.Panel, one: Panel) -> None:
    many = any("{{domain}}" in legend for _, legend in one.queries)
    legend = common.VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST).calcs([])
    made.legend(legend.placement(LegendPlacement.RIGHT if many else LegendPlacement.BOTTOM))
    made.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    made.line_width(1).span_nulls(isinstance(made, trend.Panel)).show_points(VisibilityMode.AUTO)
    made.fill_opacity(70 if one.kind in STACKED else 0)
    if one.kind in STACKED:
        made.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    for phase, color in COLORS.items() if any("{{phase}}" in legend for _, legend in one.queries) else ():
        made.override_by_name(phase, [DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})])
    if isinstance(made, trend.Panel):
        made.x_field(STEP).with_transformation(DataTransformerConfig(id_val="joinByField", options={"byField": "Time", "mode": "outer"}))
        whole = (("unit", "none"), ("min", None), ("max", None), ("decimals", 0), ("custom.axisLabel", "step"))
        made.override_by_name(STEP, [DynamicConfigValue(id_val=name, value=value) for name, value in whole])


@draw.register
def number(made: stat.Panel, one: Panel) -> None:
    made.graph_mode(BigValueGraphMode.NONE).reduce_options(LAST)


@draw.register
def bars(made: bargauge.Panel, one: Panel) -> None:
    made.orientation(VizOrientation.HORIZONTAL).reduce_options(LAST).display_mode(BarGaugeDisplayMode.BASIC)
    made.text(common.VizTextDisplayOptions().title_size(13).value_size(13)).value_mode(BarGaugeValueMode.TEXT)


@draw.register
def states(made: statetimeline.Panel, one: Panel) -> None:
    """`levels`: the phase that each value stands for."""
    meanings = {
        f"{value:g}": ValueMappingResult(text=phase, color=COLORS[phase], index=place)
        for place, (value, phase) in enumerate(one.levels)
        if value is not None
    }
    made.mappings([ValueMap(options=meanings)]).show_value(VisibilityMode.AUTO).merge_values(True).fill_opacity(80)
    made.legend(common.VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM))
    made.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.SINGLE))


@draw.register
def rows(made: table.Panel, one: Panel) -> None:
    """One a value of the first column's label; each query is a column."""
    label, *columns = one.columns
    values = {f"Value #{chr(65 + place)}": legend for place, (_, legend) in enumerate(one.queries)}
    order = {name: place for place, name in enumerate((label.name, *values))}
    made.with_transformation(DataTransformerConfig(id_val="merge", options={}))
    made.with_transformation(
        DataTransformerConfig(id_val="organize", options={"excludeByName": {"Time": True}, "indexByName": order, "renameByName": values})
    )
    for column in columns:
        looks = [DynamicConfigValue(id_val="unit", value=column.unit)]
        if column.bar:
            looks.append(DynamicConfigValue(id_val="custom.cellOptions", value={"type": "gauge", "mode": "basic"}))
            looks.append(DynamicConfigValue(id_val="fieldMinMax", value=True))
            looks.append(DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": "blue"}))
        else:
            looks.append(DynamicConfigValue(id_val="decimals", value=2 if column.unit != "percentunit" else 1))
        made.override_by_name(column.name, looks)
    made.cell_height(TableCellHeight.SM).sort_by([common.TableSortByFieldState().display_name("Found / reference").desc(True)])
