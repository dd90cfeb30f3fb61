"""The frame of every HTML report: one page that needs nothing else, its style, cards of charts, and a table of settings.

>>> settings_table({"seeds": "0 to 4"})
'<div class="wide"><table><tr><td>seeds</td><td class="text"><span class="as-is">0 to 4</span></td></tr></table></div>'
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

STYLE = """
:root{color-scheme:light dark;--ink:#1c1c1c;--paper:#fff;--faint:#8886;--card:#f6f6f4}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8e8;--paper:#161616;--card:#222}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
  max-width:1360px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}h3{font-size:1rem;margin:1rem 0 .3rem}.grid-of-charts h3{margin-top:0}
table{border-collapse:collapse;font-size:.9rem}.wide{overflow-x:auto}
th,td{padding:.25rem .7rem;border-bottom:1px solid var(--faint);text-align:right}
td{white-space:nowrap}td:first-child,td.text{white-space:normal}
th:first-child,td:first-child,td.text,th.text{text-align:left}td.text{overflow-wrap:anywhere;min-width:7.5em}.as-is{white-space:pre-wrap}tr.ours{font-weight:600}
.grid-of-charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(420px,100%),1fr));gap:1.2rem}
.grid-of-charts>div{background:var(--card);padding:1rem;border-radius:8px}
figure{margin:0}figure>svg{width:100%;height:auto}svg text{font-size:12px;fill:var(--ink)}
.axis{fill:none;stroke:var(--ink)}.dot{fill:var(--ink)}.grid{stroke:var(--faint);stroke-width:.6}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.82rem}
.legend i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.35em}
@media(max-width:600px){svg text{font-size:18px}.grid-of-charts>div{padding:.6rem}}
li.yes::marker{content:"✓  "}li.no::marker{content:"✗  "}li.open::marker{content:"?  "}
"""
"""Of all our pages."""


def page(title: str, sections: Iterable[str]) -> str:
    """One HTML page that needs nothing else."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>{''.join(sections)}</body></html>\n"
    )


def settings_table(configuration: Mapping[str, str]) -> str:
    """The settings of the run, by name."""
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="text"><span class="as-is">{escape(value)}</span></td></tr>'
        for name, value in configuration.items()
    )
    return f'<div class="wide"><table>{rows}</table></div>'


def cards(charts: Iterable[tuple[str, str]]) -> str:
    """Charts with their titles, side by side where there is room."""
    cards = [f"<div><h3>{escape(title)}</h3>{chart}</div>" for title, chart in charts]
    return f'<div class="grid-of-charts">{"".join(cards)}</div>'
