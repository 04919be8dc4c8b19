// Draws each figure that the page carries as JSON with plotly.js, in the style sheet's colours, and again when these or the room change.
"use strict";
const solfaCharts = (() => {
  const SETTINGS = { displayModeBar: false, responsive: true, doubleClick: "reset", showTips: false };
  const FAINT = "rgba(128,128,128,0.12)"; // of an area that was not chosen
  const LETTER = 16; // pixels of a chart's width for each letter of a row's name
  const SCHEME = matchMedia("(prefers-color-scheme: dark)");
  const NARROW = matchMedia("(max-width: 40rem)");
  const drawn = new Map(); // a chart's id: the figure that it shows
  let chosen = new Set();

  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // "var(--c3)" anywhere in a figure becomes the colour of now.
  const coloured = (value) => {
    if (typeof value === "string") return value.startsWith("var(") ? variable(value.slice(4, -1)) : value;
    if (Array.isArray(value)) return typeof value[0] === "number" ? value : value.map(coloured);
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, coloured(one)]));
    return value;
  };

  const axis = (own, left) => ({
    gridcolor: variable("--grid"), linecolor: variable("--rule"), zerolinecolor: variable("--rule"), automargin: true, fixedrange: left,
    ...own, title: { ...own.title, font: { size: 12, color: variable("--quiet") }, standoff: 8 },
  });

  // The end of a name tells as much as its beginning, so what has no room is left out of the middle.
  const shortened = (name, most) => (name.length > most ? `${name.slice(0, Math.ceil(most / 2) - 1)}…${name.slice(-Math.floor(most / 2))}` : name);

  const labels = (rows, width) => {
    const most = Math.max(10, Math.floor(width / LETTER));
    return { tickmode: "array", tickvals: rows, ticktext: rows.map((name) => shortened(name, most)) };
  };

  const layout = (figure, width) => ({
    margin: { l: 48, r: 12, t: 8, b: 40 }, ...figure.layout,
    autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom", // a finger scrolls the page
    uirevision: figure.stage || 1, // where a person has zoomed to stays as points are added
    separators: ".,", showlegend: Boolean(figure.legend),
    legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", font: { size: 12 }, itemclick: false, itemdoubleclick: false },
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: variable("--ink") },
    hoverlabel: { bgcolor: variable("--sunken"), bordercolor: variable("--rule"), font: { color: variable("--ink") } },
    xaxis: axis(figure.layout.xaxis, false), yaxis: axis({ ...figure.layout.yaxis, ...(figure.rows && labels(figure.rows, width)) }, true),
  });

  // A running stage saves its history now and then, and reports its newest step all the time: what was reported since is kept here.
  const joined = (figure, before) => {
    if (!figure.saved || before?.stage !== figure.stage) return figure;
    const data = figure.data.map((trace, place) => {
      const old = before.data[place];
      const last = trace.x[trace.x.length - 1];
      if (!old || old.name !== trace.name || last <= figure.saved) return trace;
      const kept = old.x.map((step, at) => [step, old.y[at]]).filter(([step]) => step > figure.saved && step < last);
      const cut = trace.x.length - 1;
      return {
        ...trace,
        x: [...trace.x.slice(0, cut), ...kept.map(([step]) => step), last],
        y: [...trace.y.slice(0, cut), ...kept.map(([, value]) => value), trace.y[cut]],
      };
    });
    return { ...figure, data };
  };

  const shown = (trace) => {
    if (!chosen.size || !trace.line || chosen.has(trace.name)) return trace;
    if (!trace.stackgroup) return { ...trace, opacity: 0.13 };
    const { fillpattern, ...plain } = trace;
    return { ...plain, fillcolor: FAINT };
  };

  const show = (id) => {
    const figure = drawn.get(id);
    const traces = figure.legend ? figure.data : figure.data.map(shown);
    const chart = document.getElementById(id);
    Plotly.react(chart, coloured(traces), layout(figure, chart.clientWidth), SETTINGS);
  };

  const draw = (root) => {
    for (const script of root.querySelectorAll("script.figure-data")) {
      const id = script.dataset.chart;
      drawn.set(id, joined(JSON.parse(script.textContent), drawn.get(id)));
      show(id);
    }
  };

  const redraw = () => {
    for (const id of drawn.keys()) if (document.getElementById(id)) show(id);
  };

  document.addEventListener("DOMContentLoaded", () => draw(document));
  for (const changing of [SCHEME, NARROW]) changing.addEventListener("change", redraw);
  // Paper is white: the style sheet has no dark theme while the page is printed, and its charts follow.
  const print = (on) => {
    document.documentElement.classList.toggle("printing", on);
    redraw();
  };
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.domain");
    if (!button) return;
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
    chosen = new Set([...document.querySelectorAll("button.domain[aria-pressed=true]")].map((one) => one.dataset.domain));
    redraw();
  });
  const press = () => {
    for (const button of document.querySelectorAll("button.domain")) button.setAttribute("aria-pressed", String(chosen.has(button.dataset.domain)));
  };
  return { draw, press };
})();
