// Draws a dashboard from its JSON and what Prometheus answered: Grafana's own frames, transformations, units, colours, graphs and
// bars; the state timeline and the table, which its library has not, in their simplest form.
import * as React from 'react';
import { createRoot } from 'react-dom/client';
import {
  applyFieldOverrides, createTheme, dateTime, FieldConfigOptionsRegistry, FieldType, formattedValueToString, getDisplayValueAlignmentFactors,
  getFieldConfigWithMinMax, getFieldDisplayName, getFieldDisplayValues, isLikelyAscendingVector, sortDataFrame, standardTransformers,
  standardTransformersRegistry, ThemeContext, toDataFrame, transformDataFrame,
} from '@grafana/data';
import { BarGauge, BigValue, GlobalStyles, PanelChrome, TimeSeries, VizRepeater } from '@grafana/ui';

const WIDTH = 1600, COLUMN = WIDTH / 24, ROW = 38, GAP = 8;
const NONE: any = 'auto';
const transformers = [...new Map(Object.values(standardTransformers).map((one: any) => [one.id, one])).values()];
standardTransformersRegistry.setInit(() => transformers.map((one) => ({ id: one.id, name: one.name, transformation: async () => one }) as any));
const registry = new FieldConfigOptionsRegistry();
for (const id of ['unit', 'min', 'max', 'decimals', 'noValue', 'thresholds', 'color', 'mappings', 'fieldMinMax'])
  registry.register(option(id, false));
for (const id of ['lineWidth', 'fillOpacity', 'spanNulls', 'showPoints', 'stacking', 'axisLabel', 'cellOptions'])
  registry.register(option(id, true));

function option(name: string, isCustom: boolean): any {
  return { id: isCustom ? `custom.${name}` : name, path: name, name, isCustom, process: (value: any) => value, shouldApply: () => true };
}

// As Grafana's data source makes them: a frame a series, or a frame a query where a table is asked for.
function frames(panel: any, answers: any[]): any[] {
  return panel.targets.flatMap((target: any, place: number) => {
    const series = answers[place];
    if (target.format === 'table') {
      const labels = [...new Set(series.flatMap((one: any) => Object.keys(one.metric)))] as string[];
      return series.length === 0 ? [] : [toDataFrame({ refId: target.refId, fields: [
        { name: 'Time', type: FieldType.time, values: series.map((one: any) => one.value[0] * 1000), config: {} },
        ...labels.map((name) => ({ name, type: FieldType.string, values: series.map((one: any) => one.metric[name] ?? ''), config: {} })),
        { name: `Value #${target.refId}`, type: FieldType.number, values: series.map((one: any) => Number(one.value[1])), config: {} },
      ] })];
    }
    return series.map((one: any) => {
      const samples: [number, string][] = one.values ?? [one.value];
      const name = target.legendFormat.replace(/\{\{(\w+)\}\}/g, (_: string, label: string) => one.metric[label] ?? '');
      return toDataFrame({ refId: target.refId, name, fields: [
        { name: 'Time', type: FieldType.time, values: samples.map(([at]) => at * 1000), config: { interval: 30_000 } },
        { name: 'Value', type: FieldType.number, labels: one.metric, values: samples.map(([, value]) => Number(value)), config: { displayNameFromDS: name } },
      ] });
    });
  });
}

function changed(all: any[], changes: any[] | undefined): Promise<any[]> {
  return changes?.length && all.length ? new Promise((done) => transformDataFrame(changes, all).subscribe(done)) : Promise.resolve(all);
}

function Steps({ panel, frame, range, w, h }: any) {
  const at = frame.fields.findIndex((field: any) => getFieldDisplayName(field, frame) === panel.options.xField);
  if (at < 0) return <b>Unable to find field: {panel.options.xField}</b>;
  if (!isLikelyAscendingVector(frame.fields[at].values)) return <b>Values must be in ascending order</b>;
  const rest = frame.fields.filter((field: any, place: number) => place !== at && field.type === FieldType.number);
  const fields = [frame.fields[at], ...rest].map((field, fieldIndex) => ({ ...field, state: { ...field.state, origin: { frameIndex: 0, fieldIndex } } }));
  return <TimeSeries frames={[{ ...frame, fields }]} preparePlotFrame={(all: any) => all[0]} timeRange={range} timeZone="utc" width={w} height={h} legend={panel.options.legend} />;
}

function States({ all, theme, range, w, h }: any) {
  const left = 110, row = (h - 8) / all.length, from = +range.from, x = (at: number) => left + ((at - from) / (+range.to - from)) * (w - left);
  return <svg width={w} height={h} style={{ font: '12px Inter, sans-serif' }}>{all.map((frame: any, place: number) => {
    const [times, field] = frame.fields, spans: { value: number; from: number; till: number }[] = [];
    times.values.forEach((at: number, i: number) => {
      const last = spans[spans.length - 1];
      if (last && last.value === field.values[i] && at <= last.till) last.till = at + 30_000;
      else spans.push({ value: field.values[i], from: at, till: at + 30_000 });
    });
    return <g key={place}>
      <text x={left - 8} y={row * (place + 0.5) + 4} textAnchor="end" fill={theme.colors.text.primary}>{getFieldDisplayName(field, frame, all)}</text>
      {spans.map((span, i) => { const shown = field.display(span.value), width = x(span.till) - x(span.from); return <g key={i}>
        <rect x={x(span.from)} y={row * (place + 0.05)} width={width} height={row * 0.9} fill={shown.color} fillOpacity={0.8} />
        {width > 70 && <text x={x(span.from) + 6} y={row * (place + 0.5) + 4}>{shown.text}</text>}
      </g>; })}
    </g>;
  })}</svg>;
}

function Rows({ panel, frame, theme, w, h }: any) {
  const [by] = panel.options.sortBy, of = (field: any) => getFieldDisplayName(field, frame);
  const { fields, length } = sortDataFrame(frame, frame.fields.findIndex((field: any) => of(field) === by.displayName), by.desc), width = w / fields.length;
  const line = (key: React.Key, cell: (field: any) => React.ReactNode) => <div key={key} style={{ display: 'flex', height: 36, alignItems: 'center', borderBottom: `1px solid ${theme.colors.border.weak}` }}>
    {fields.map((field: any) => <div key={of(field)} style={{ width, padding: '0 6px', textAlign: field.type === FieldType.number ? 'right' : 'left' }}>{cell(field)}</div>)}</div>;
  return <div style={{ height: h, overflow: 'hidden', color: theme.colors.text.primary }}>
    {line('head', (field) => <b>{of(field)}</b>)}
    {[...Array(length).keys()].map((i) => line(i, (field) => field.config.custom?.cellOptions?.type === 'gauge'
      ? <BarGauge width={width - 12} height={26} field={getFieldConfigWithMinMax(field, false)} display={field.display} value={field.display(field.values[i])} orientation={'horizontal' as any} theme={theme} displayMode={'basic' as any} text={{ valueSize: 14 }} />
      : formattedValueToString(field.display(field.values[i]))))}
  </div>;
}

function Body({ panel, all, theme, range, w, h }: any) {
  if (!all.length) return <div style={{ display: 'grid', placeItems: 'center', height: h, color: theme.colors.text.secondary }}>{panel.fieldConfig.defaults.noValue}</div>;
  for (const step of panel.fieldConfig.defaults.thresholds.steps) step.value ??= -Infinity;
  const context = { fieldConfig: panel.fieldConfig, replaceVariables: (text: string) => text, theme, timeZone: 'utc' };
  const ready = applyFieldOverrides({ ...context, data: all, fieldConfigRegistry: registry });
  const { options } = panel, place = { panel, theme, range, w, h };
  switch (panel.type) {
    case 'timeseries': return <TimeSeries frames={ready} timeRange={range} timeZone="utc" width={w} height={h} legend={options.legend} />;
    case 'trend': return <Steps {...place} frame={ready[0]} />;
    case 'state-timeline': return <States {...place} all={ready} />;
    case 'table': return <Rows {...place} frame={ready[0]} />;
  }
  const values = getFieldDisplayValues({ ...context, data: ready, reduceOptions: options.reduceOptions });
  const draw = ({ value, width, height, count, orientation, alignmentFactors }: any) => panel.type === 'stat'
    ? <BigValue value={value.display} count={count} colorMode={'value' as any} graphMode={options.graphMode} justifyMode={NONE} textMode={NONE} width={width} height={height} theme={theme} />
    : <BarGauge value={value.display} width={width} height={height} orientation={orientation} field={value.field} display={value.view?.getFieldDisplayProcessor(value.colIndex)} theme={theme} displayMode={options.displayMode} alignmentFactors={alignmentFactors} valueDisplayMode={options.valueMode} text={options.text} />;
  return <VizRepeater getValues={() => values} source={ready} width={w} height={h} renderCounter={0} itemSpacing={8} minVizHeight={16} maxVizHeight={300} orientation={options.orientation ?? NONE} autoGrid getAlignmentFactors={getDisplayValueAlignmentFactors as any} renderValue={draw} />;
}

function Board({ board, all, theme, range }: any) {
  const height = ROW * Math.max(...board.panels.map(({ gridPos }: any) => gridPos.y + gridPos.h));
  return <div style={{ position: 'relative', width: WIDTH, height, background: theme.colors.background.canvas }}>{board.panels.map((panel: any) => {
    const { x, y, w, h } = panel.gridPos, at = { position: 'absolute' as const, left: x * COLUMN, top: y * ROW };
    if (panel.type === 'row') return <div key={panel.id} style={{ ...at, padding: '6px 8px', font: '500 16px Inter, sans-serif', color: theme.colors.text.primary }}>{panel.title}</div>;
    return <div key={panel.id} style={at}><PanelChrome title={panel.title} description={panel.description} width={w * COLUMN - GAP} height={h * ROW - GAP}>
      {(width: number, height: number) => <Body panel={panel} all={all.get(panel.id)} theme={theme} range={range} w={width} h={height} />}
    </PanelChrome></div>;
  })}</div>;
}

(window as any).draw = async (board: any, answers: Record<string, any[]>, start: number, end: number, mode: 'dark' | 'light') => {
  const theme = createTheme({ colors: { mode } }), from = dateTime(start * 1000), to = dateTime(end * 1000), all = new Map();
  for (const panel of board.panels) if (panel.type !== 'row') all.set(panel.id, await changed(frames(panel, answers[panel.id]), panel.transformations));
  createRoot(document.body.appendChild(document.createElement('div'))).render(
    <ThemeContext.Provider value={theme}><GlobalStyles /><Board board={board} all={all} theme={theme} range={{ from, to, raw: { from, to } }} /></ThemeContext.Provider>);
};
