"""The style of a story's page, light and dark, on paper and on a phone; and the colours alone, for pictures."""

PALETTE = """
:root {
  color-scheme: light dark;
  --back: #f7f8f9; --card: #ffffff; --text: #1b2127; --muted: #55616c; --rule: #d5dbe0; --wire: #66727d;
  --operand: #3d4852; --operand-soft: #e9edf0; --between: #a2480a; --between-soft: #fdeadb;
  --result: #1c5bb8; --result-soft: #e2edfc; --box: #f2f5f7; --full: #2f6fc7; --mixed: #8db4ea; --good: #1b6f42;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #12161a; --card: #1a2026; --text: #e7ebef; --muted: #a3afba; --rule: #364049; --wire: #8b98a4;
    --operand: #b9c3cc; --operand-soft: #2a323a; --between: #ffb176; --between-soft: #43290f;
    --result: #8ab8ff; --result-soft: #1b3254; --box: #222a31; --full: #6ea5f5; --mixed: #34598f; --good: #7ad6a3;
  }
}
"""
CSS = (
    PALETTE
    + """* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { font-size: 1.7rem; margin: 0 0 8px; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 40px 0 12px; }
h3 { font-size: 1rem; margin: 0 0 8px; overflow-wrap: anywhere; }
p { margin: 0 0 12px; max-width: 75ch; }
pre, code, .code { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: .88rem; }
pre { margin: 0 0 16px; padding: 12px 14px; background: var(--card); border: 1px solid var(--rule); border-radius: 8px;
  overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
.card p { margin: 0; }
.card ul { margin: 4px 0 0; padding-left: 20px; font-size: .92rem; }
.note { color: var(--muted); font-size: .92rem; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(132px, 1fr)); gap: 10px; margin: 16px 0; }
.numbers div { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 10px 12px; }
.numbers dt { color: var(--muted); font-size: .82rem; }
.numbers dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.numbers small { display: block; color: var(--muted); font-size: .8rem; }
.pair { margin-bottom: 12px; display: grid; grid-template-columns: 1fr; gap: 16px; align-items: start; }
@media (min-width: 980px) { .pair { grid-template-columns: 1fr 1fr; } }
figure, .card { margin: 0 0 16px; background: var(--card); border: 1px solid var(--rule); border-radius: 8px;
  padding: 14px; min-width: 0; }
figure { overflow-x: auto; }
.pair figure { margin: 0; }
figcaption { margin-bottom: 10px; font-weight: 600; }
figcaption small { display: block; font-weight: 400; color: var(--muted); }
svg { display: block; width: 100%; height: auto; }
svg.cascade { min-width: 430px; max-width: 620px; }
svg text { fill: var(--text); font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
svg text.muted, svg text.bytes, svg text.time { fill: var(--muted); }
svg text.name { font-weight: 700; }
.frame { fill: none; stroke: var(--muted); stroke-width: 1.2; }
.box { fill: var(--box); stroke: var(--rule); }
.wire { fill: none; stroke: var(--wire); stroke-width: 1; }
.lane { fill: none; stroke-width: 1.3; }
.lane.operand, .pill.operand { stroke: var(--operand); } .pill.operand { fill: var(--operand-soft); }
.lane.between, .pill.between { stroke: var(--between); } .pill.between { fill: var(--between-soft); }
.lane.result, .pill.result { stroke: var(--result); } .pill.result { fill: var(--result-soft); }
.dot.operand, marker.operand { fill: var(--operand); } .dot.between, marker.between { fill: var(--between); }
.dot.result, marker.result { fill: var(--result); } marker.wire { fill: var(--wire); }
.legend { display: flex; flex-wrap: wrap; gap: 6px 18px; margin: 0 0 12px; padding: 0; list-style: none;
  font-size: .9rem; }
.legend i { display: inline-block; width: 22px; height: 13px; margin-right: 6px; border: 1.3px solid;
  border-radius: 7px; vertical-align: -1px; }
.legend .operand { border-color: var(--operand); background: var(--operand-soft); }
.legend .between { border-color: var(--between); background: var(--between-soft); }
.legend .result { border-color: var(--result); background: var(--result-soft); }
.legend .full { border-radius: 2px; border-color: var(--full); background: var(--full); }
.legend .mixed { border-radius: 2px; border-color: var(--full);
  background: repeating-linear-gradient(45deg, var(--mixed) 0 3px, var(--card) 3px 5px); }
.legend .empty { border-radius: 2px; border-color: var(--rule); background: var(--card); }
svg .full { fill: var(--full); } svg .empty { fill: var(--card); stroke: var(--rule); }
.hatch-back { fill: var(--card); } .hatch-line { fill: var(--full); }
.grid { fill: none; stroke: var(--wire); stroke-width: .5; stroke-opacity: .35; }
.cut { fill: none; stroke: var(--text); stroke-width: 1.5; }
.scroll { overflow-x: auto; margin: 0 0 16px; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; background: var(--card); }
th, td { text-align: left; vertical-align: top; padding: 7px 10px; border: 1px solid var(--rule); }
th { font-weight: 600; } thead th { color: var(--muted); font-size: .85rem; }
td.code { white-space: pre-wrap; overflow-wrap: anywhere; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.math { font-family: "STIX Two Text", "Latin Modern Roman", Cambria, "DejaVu Serif", Georgia, serif; font-size: 1.06rem;
  overflow-wrap: anywhere; }
.math sup, .math sub { font-size: .74em; line-height: 0; }
.rows { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 4px 16px; margin: 8px 0 0; }
.rows dt { color: var(--muted); font-size: .9rem; padding-top: 2px; } .rows dd { margin: 0; }
@media (max-width: 560px) { table.stack :is(thead) { display: none; } table.stack :is(tr, td, th) { display: block; }
  table.stack td { border-top: 0; } table.stack tr { border-top: 1px solid var(--rule); font-size: .92rem; }
  table.stack tr > :first-child { font-weight: 600; } }
@media (max-width: 560px) { .rows { grid-template-columns: 1fr; gap: 0; } .rows dd { margin-bottom: 8px; } }
table.matrix { width: auto; background: none; border-left: 2px solid var(--text); border-right: 2px solid var(--text);
  border-radius: 8px; }
table.matrix td { border: 0; padding: 2px 12px; white-space: nowrap; }
.bars { display: grid; grid-template-columns: max-content minmax(60px, 320px) max-content; gap: 4px 10px;
  align-items: center; font-size: .9rem; margin: 6px 0; }
.bars span.bar { height: 12px; border-radius: 3px; background: var(--muted); min-width: 2px; }
.bars span.bar.chosen { background: var(--result); }
.open { border-left: 4px solid var(--between); }
"""
)
