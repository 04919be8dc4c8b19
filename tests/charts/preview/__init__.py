"""Pictures of the dashboards, drawn outside Grafana by its own component library: `python -m tests.charts.preview` (needs Node.js)."""
