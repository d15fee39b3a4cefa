"""The look of a result card: light and dark, wide and narrow."""

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f8; --sheet: #ffffff;
  --text: #1d2329; --faint: #66717b; --line: #dfe4e8; --track: #e6eaee;
  --kept: #2b6c99; --s1: #c2571a; --s2: #3d8152; --s3: #8354a3; }
@media (prefers-color-scheme: dark) { :root { --page: #14181c;
  --sheet: #1d2328; --text: #e8ecef; --faint: #9aa6b0; --line: #343d45;
  --track: #303941; --kept: #62a8d8; --s1: #ee9458; --s2: #76be8c;
  --s3: #bb94d8; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 4px;
  overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 12px; }
h3 { font-size: 14px; margin: 18px 0 6px; overflow-wrap: anywhere; }
p { margin: 6px 0; }
section { background: var(--sheet); border: 1px solid var(--line);
  border-radius: 8px; padding: 18px; margin-top: 16px; }
.faint { color: var(--faint); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th { font-weight: 600; text-align: left; color: var(--faint); }
td, th { padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
.charts { display: grid; gap: 24px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; margin-bottom: 4px; }
.chart svg { width: 100%; height: auto; display: block; }
.grid { stroke: var(--line); }
.tick { fill: var(--faint); font-size: 12px; }
polyline { fill: none; stroke-width: 2; stroke-linejoin: round;
  vector-effect: non-scaling-stroke; }
polyline.s0 { stroke: var(--kept); } polyline.s1 { stroke: var(--s1); }
polyline.s2 { stroke: var(--s2); } polyline.s3 { stroke: var(--s3); }
circle.s0 { fill: var(--kept); } circle.s1 { fill: var(--s1); }
circle.s2 { fill: var(--s2); } circle.s3 { fill: var(--s3); }
polyline.dashed { stroke-dasharray: 5 4; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: 13px; }
.key i { display: inline-block; width: 16px; border-top: 3px solid;
  vertical-align: middle; margin-right: 6px; }
.key i.s0 { color: var(--kept); } .key i.s1 { color: var(--s1); }
.key i.s2 { color: var(--s2); } .key i.s3 { color: var(--s3); }
.key i.dashed { border-top-style: dashed; }
.unit { display: grid; align-items: center; gap: 2px 14px; padding: 2px 0;
  grid-template-columns: 190px minmax(0, 1fr) 96px 110px 110px 48px; }
.unit span { overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
.unit.head { color: var(--faint); font-size: 13px; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
.track { background: var(--track); border-radius: 3px; height: 13px; }
.track i { display: block; height: 100%; border-radius: 3px;
  background: var(--kept); }
.track.gone { background: none; border: 1px dashed var(--faint); }
.spark { width: 100%; height: 22px; display: block; }
.blocks { display: flex; flex-wrap: wrap; gap: 5px; margin: 4px 0 6px; }
.block { min-width: 26px; padding: 0 6px; border-radius: 4px;
  text-align: center; border: 1px solid var(--kept);
  background: var(--kept); color: var(--sheet); font-size: 13px; }
.block.gone { background: none; border: 1px dashed var(--faint);
  color: var(--faint); }
pre { overflow-x: auto; background: var(--page); padding: 12px;
  border-radius: 6px; font-size: 13px; margin: 8px 0; }
code { overflow-wrap: anywhere; }
summary { cursor: pointer; }
@media (max-width: 720px) {
  section { padding: 14px; }
  td, th { padding-right: 8px; font-size: 13px; }
  .unit { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr);
    padding: 6px 0; }
  .unit .track { grid-column: 1 / 3; grid-row: 2; }
  .unit.head { display: none; }
  .unit .last { display: none; } }
"""
