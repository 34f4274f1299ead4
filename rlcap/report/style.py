"""How the page looks: one column that fits a phone, light or dark as the reader's system is."""

STYLE = """
:root{color-scheme:light dark;--paper:#f6f7f8;--card:#fff;--ink:#1b1e22;--faint:#59616b;--line:#dfe2e6;--link:#0b5cad;
--good:#17703a;--bad:#b3261e;--warn:#fff3dc;--warn-edge:#d9932b;--on:#fff;
--c0:#0b6bcb;--c1:#c2410c;--c2:#15803d;--c3:#8b31d9;--c4:#be185d;--c5:#0e7490;--c6:#96600a;--c7:#475569}
@media (prefers-color-scheme:dark){:root{--paper:#121518;--card:#1b1f24;--ink:#e8eaed;--faint:#a5adb8;--line:#323840;
--link:#8ec2ff;--good:#6fd492;--bad:#ff9188;--warn:#352a16;--warn-edge:#c98f35;--on:#101214;
--c0:#6cb2ff;--c1:#ff9f66;--c2:#5fd38a;--c3:#cda6ff;--c4:#ff8fc0;--c5:#5fd0e3;--c6:#e5c05c;--c7:#a9b6c9}}
.c0{--c:var(--c0)}.c1{--c:var(--c1)}.c2{--c:var(--c2)}.c3{--c:var(--c3)}
.c4{--c:var(--c4)}.c5{--c:var(--c5)}.c6{--c:var(--c6)}.c7{--c:var(--c7)}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-padding-top:3.2rem}
body{margin:0 auto;max-width:1240px;padding:0 16px 48px;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;overflow-wrap:anywhere}
header{padding:28px 0 4px}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 10px}
h2{font-size:1.3rem;margin:40px 0 12px}
h3{font-size:1.02rem;margin:24px 0 10px}
h4{font-size:.9rem;margin:0 0 4px}
p{margin:0 0 6px}
a{color:var(--link)}
a:focus-visible,summary:focus-visible,[tabindex]:focus-visible{outline:2px solid var(--link);outline-offset:2px}
bdi{unicode-bidi:isolate}
nav{display:flex;flex-wrap:wrap;gap:4px 18px}
nav a{padding:4px 0}
footer{margin-top:40px}
.faint,.note,small{color:var(--faint)}
.note{font-size:.92rem;max-width:80ch}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px}
.good{color:var(--good)}.bad{color:var(--bad)}
.key{position:sticky;top:0;z-index:2;display:flex;gap:6px 18px;margin:10px -16px 0;padding:8px 16px;list-style:none;
background:var(--paper);border-bottom:1px solid var(--line);overflow-x:auto;white-space:nowrap;font-size:.92rem}
span.badge{display:inline-block;min-width:1.45em;padding:0 .3em;border-radius:1em;background:var(--c);color:var(--on);
font-size:.8em;font-weight:700;line-height:1.45;text-align:center;vertical-align:.08em}
.results{display:grid;grid-template-columns:1fr minmax(0,440px);gap:14px;align-items:start}
.results.many{grid-template-columns:minmax(0,1fr)}
.results.many .curve{max-width:520px}
.results>:only-child{grid-column:1/-1}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,250px),1fr));gap:14px}
.result{padding:14px 16px;border-top:4px solid var(--c)}
.result h3{margin:0 0 4px}
.result p{margin:0 0 2px;font-size:.92rem}
.big{font-size:2.3rem;font-weight:700;line-height:1.15;font-variant-numeric:tabular-nums}
.warned a{font-weight:600}
.warnings{margin:0;padding:0;list-style:none;display:grid;gap:10px}
.warnings li{padding:10px 14px;background:var(--warn);border-left:4px solid var(--warn-edge);border-radius:6px}
.warnings p{margin:0 0 2px}
.scrolls{overflow-x:auto;margin-bottom:10px}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{padding:7px 12px;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
tbody:last-child tr:last-child>*{border-bottom:0}
tbody th{font-weight:400}
thead th{font-weight:600}thead tr>*{border-bottom-width:2px}
.metrics tbody th{width:34%}.metrics th{overflow-wrap:break-word}
.group th{font-weight:600;padding-top:14px;color:var(--faint)}
td{min-width:104px}
.metrics td{font-variant-numeric:tabular-nums;white-space:nowrap}
.metrics td b,.metrics td span{font-size:1.05em}
.metrics small{margin-left:8px}
.interval{display:block;width:100%;max-width:150px;height:10px}
.interval rect{fill:var(--faint)}
.interval rect+rect{fill:var(--ink)}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,320px),1fr));gap:14px}
figure{margin:0}
.curve{padding:10px 12px 4px}
.curve figcaption{font-size:.92rem;line-height:1.35}
.chart{display:block;width:100%;height:auto;margin-top:4px}
.chart text{font-size:10.5px;fill:var(--faint)}
.chart .grid{stroke:var(--line);stroke-width:1;fill:none}
.chart .line,.chart .faint-line{stroke:var(--c);fill:none;stroke-width:2;stroke-linejoin:round}
.chart .faint-line{stroke-width:1;opacity:.3}
.chart circle{fill:var(--c)}
.chart .badge text{fill:var(--on);font-weight:700;font-size:10px}
details{margin:12px 0}
summary{cursor:pointer;padding:6px 0;font-weight:600}
pre{margin:0;padding:12px;overflow-x:auto;font-size:.85rem;background:var(--card);border:1px solid var(--line);
border-radius:10px}
.hidden{position:absolute}
.row{display:grid;grid-template-columns:250px 1fr;gap:20px;padding:16px;margin-bottom:14px}
.photo svg{display:block;width:100%;height:auto;max-height:300px;border-radius:6px}
.name{font-size:.8rem;margin:4px 0 6px}
.over{font-size:.8rem;font-weight:600;color:var(--faint);margin:8px 0 2px}
.references{margin:0;padding-left:1.1em;font-size:.88rem;line-height:1.4}
.runs{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr));gap:18px 22px;align-content:start}
.said{min-width:0;border-left:3px solid var(--c);padding-left:12px}
.card.said{padding:12px 16px}
.caption{font-size:1.08rem;line-height:1.35;margin:0 0 2px}
.unheard{text-decoration:underline wavy var(--bad) 1px;text-underline-offset:3px}
.score{font-size:.88rem;color:var(--faint);font-variant-numeric:tabular-nums}
.gazes{display:grid;grid-template-columns:repeat(auto-fill,minmax(80px,1fr));gap:8px 6px;margin:8px 0 0;padding:0;
list-style:none}
.gazes svg{display:block;width:100%;height:auto;border-radius:4px}
.gazes span{display:block;font-size:.78rem;line-height:1.25;text-align:center}
.dot{fill:#ffb000;stroke:#1b1e22;stroke-width:1}
.goals{display:block;width:100%;margin-top:10px}
.goals text{font-size:10.5px;fill:var(--ink)}
.goals .more{fill:var(--c0)}.goals .less{fill:var(--c1)}
.goals .turn{fill:none;stroke-width:2}
.goals .turn.goal{stroke:var(--c3)}.goals .turn.gaze{stroke:var(--c2)}
.goals text.goal{fill:var(--c3)}.goals text.gaze{fill:var(--c2)}
.sentences{padding-left:1.4em}
@media (max-width:960px){.results{grid-template-columns:minmax(0,1fr)}}
@media (max-width:700px){.row{grid-template-columns:minmax(0,1fr);padding:12px}
.people:has(.photo){display:grid;grid-template-columns:120px 1fr;gap:0 12px}
.over{margin-top:0}
.gazes{grid-template-columns:repeat(auto-fill,minmax(54px,1fr))}th,td{padding:6px 8px}
.metrics small{display:block;margin:0}.metrics tbody th{min-width:110px}h2{margin-top:32px}}
@media print{.key{position:static}}
"""
