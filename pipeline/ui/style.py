"""The look of reports: colours, type, the page's style sheet and matplotlib's settings.

Colours are Okabe and Ito's, told apart with every common colour vision deficiency.
Source: Okabe, Ito 2002, "Color universal design"; the sequential ramp is matplotlib's viridis without its palest part.
"""

from __future__ import annotations

from typing import Any

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
INK, MUTED, RULE, PAPER, SHADE = "#1a1d21", "#5a626b", "#d5d9de", "#ffffff", "#f4f6f8"
ON, OFF = "#d55e00", "#0072b2"
WRONG = "#9c2a00"
HEAT = "#e69f00"
"""Colour of class-activation maps; lighter than ON, and never in one image with it."""
CATEGORIES = ("#0072b2", "#d55e00", "#009e73", "#a3467f", "#56b4e9", "#8a6d00", "#4d4d4d")
"""One per method or loss term, in this order; taken again from the start when there are more."""
SEQUENTIAL_END = 0.88
"""Part of viridis in use; its yellow is unreadable on white."""

MATPLOTLIB: Any = {  # not dict[str, Any]: newer matplotlib types its keys, older does not
    "svg.hashsalt": "spikebridge",  # equal figures get equal bytes
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
    "pdf.fonttype": 42,  # TrueType, which publishers take; matplotlib's own choice is Type 3
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # only measures; it is wider than the fonts that browsers put in its place
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
    "lines.linewidth": 1.4,
    "lines.markersize": 3,
    "text.parse_math": False,  # names from files are text, not formulas
    "text.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}

STYLE_SHEET = f"""
:root {{ color-scheme: light; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: {PAPER}; color: {INK}; font: 15px/1.5 {FONT}; -webkit-text-size-adjust: 100%; }}
main {{ max-width: 940px; margin: 0 auto; padding: 20px 16px 56px; }}
h1 {{ font-size: 26px; line-height: 1.2; margin: 0 0 6px; overflow-wrap: anywhere; }}
h2 {{ font-size: 18px; line-height: 1.3; margin: 40px 0 10px; padding-top: 10px; border-top: 1px solid {RULE}; }}
h3 {{ font-size: 15px; margin: 24px 0 8px; }}
p {{ margin: 6px 0 10px; max-width: 72ch; }}
img {{ max-width: 100%; height: auto; }}
p, li, dd, figcaption, summary {{ overflow-wrap: anywhere; }}
code, pre {{ font-family: ui-monospace, 'SF Mono', Consolas, 'DejaVu Sans Mono', monospace; font-size: 12.5px; }}
pre {{ background: {SHADE}; border: 1px solid {RULE}; border-radius: 4px; padding: 10px 12px; margin: 8px 0;
  white-space: pre-wrap; overflow-wrap: anywhere; }}
.note {{ color: {MUTED}; font-size: 13px; }}
.tags {{ display: flex; flex-wrap: wrap; gap: 6px; margin: 10px 0 0; }}
.tag {{ border: 1px solid {RULE}; border-radius: 3px; padding: 2px 8px; font-size: 13px; background: {SHADE}; }}
.tag.warn {{ border-color: {WRONG}; color: {WRONG}; background: #fff4ec; font-weight: 600; }}
.headline {{ display: flex; flex-wrap: wrap; gap: 4px 28px; align-items: baseline; margin: 16px 0 8px; }}
.headline b {{ font-size: 36px; line-height: 1.1; font-weight: 650; font-variant-numeric: tabular-nums; }}
.facts {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 270px), 1fr)); gap: 8px 24px;
  margin: 14px 0; }}
.facts div {{ border-top: 1px solid {RULE}; padding-top: 5px; }}
.facts .wide {{ grid-column: 1 / -1; }}
.facts dt {{ color: {MUTED}; font-size: 12.5px; }}
.facts dd {{ margin: 0; font-variant-numeric: tabular-nums; }}
.figures {{ display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 22px 28px; align-items: start; }}
figure {{ margin: 0; break-inside: avoid; }}
figcaption {{ font-size: 13px; color: {MUTED}; margin-top: 2px; }}
figcaption b {{ color: {INK}; font-weight: 600; }}
svg {{ display: block; width: 100%; height: auto; }}
.single {{ max-width: 560px; }}
.scroll {{ overflow-x: auto; margin: 8px 0; }}
.figures + .note {{ margin-top: 14px; }}
.small {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)); gap: 8px; }}
.small img {{ display: block; width: 100%; image-rendering: pixelated; border: 1px solid {RULE}; }}
.small figcaption {{ font-size: 11.5px; text-align: center; line-height: 1.3; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }}
th, td {{ text-align: right; white-space: nowrap; padding: 3px 8px;
  border-bottom: 1px solid {RULE}; vertical-align: top; }}
th {{ font-weight: 600; font-size: 12.5px; color: {MUTED}; vertical-align: bottom; }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; }}
table.per-class {{ width: 100%; max-width: 620px; }}
table.per-class td:first-child {{ white-space: normal; }}
table.per-class td:last-child {{ width: 30%; min-width: 32px; }}
.bar {{ display: block; height: 9px; margin-top: 7px; background: {SHADE}; }}
.bar i {{ display: block; height: 100%; background: {OFF}; }}
table.files td.hash, table.files th.hash, td.words, th.words {{ text-align: left; }}
table.confusion {{ table-layout: fixed; width: 100%; max-width: 620px; margin: 4px 0 8px; }}
table.confusion th, table.confusion td {{ padding: 2px 0; text-align: center; font-size: 13px;
  line-height: 1.15; vertical-align: middle; }}
table.confusion th {{ border: 0; }}
table.confusion td {{ border: 1px solid {RULE}; height: 32px; }}
table.confusion tr > th:first-child {{ padding: 0 6px 0 0; text-align: right; overflow: hidden;
  text-overflow: ellipsis; }}
table.confusion thead th.long span {{ writing-mode: vertical-rl; transform: rotate(180deg); max-height: 110px;
  overflow: hidden; }}
table.confusion td small {{ display: block; font-size: 10px; opacity: .85; }}
table.confusion td.hit {{ outline: 1.5px solid {MUTED}; outline-offset: -2px; }}
.sample {{ break-inside: avoid; border-top: 1px solid {RULE}; padding: 9px 0 12px; }}
.sample p {{ margin: 0 0 6px; max-width: none; }}
.sample code {{ color: {MUTED}; }}
.verdict {{ font-weight: 650; }} .wrong {{ color: {WRONG}; }} .right {{ color: #00664b; }}
.strip {{ display: grid; grid-template-columns: 76px 1fr; gap: 14px; align-items: start; }}
.frames {{ display: grid; grid-template-columns: repeat(var(--wide), minmax(0, 76px)); gap: 4px; }}
.frames + .frames {{ margin-top: 6px; }}
.strip img {{ display: block; width: 100%; image-rendering: pixelated; border: 1px solid {RULE}; }}
.strip figcaption {{ font-size: 11px; text-align: center; line-height: 1.3; }}
.key span {{ margin-right: 6px; }} .key .short {{ white-space: nowrap; }}
.key i {{ display: inline-block; width: 11px; height: 11px; margin-right: 4px; vertical-align: -1px; }}
details {{ border-top: 1px solid {RULE}; }}
details > summary {{ cursor: pointer; padding: 9px 0; font-weight: 600; }}
details[open] > summary {{ border-bottom: 1px solid {RULE}; margin-bottom: 14px; }}
details section > h2 {{ font-size: 16px; margin-top: 28px; }}
@media (max-width: 720px) {{
  .figures {{ grid-template-columns: minmax(0, 1fr); }}
  .frames {{ grid-template-columns: repeat(var(--narrow), minmax(0, 76px)); }}
  table.confusion th, table.confusion td {{ font-size: 12px; }}
  table.confusion td small {{ font-size: 9px; }}
  th, td {{ padding-left: 6px; padding-right: 6px; }}
  th, td:first-child {{ white-space: normal; }}
  table.files td:first-child {{ white-space: nowrap; }}
}}
@media print {{
  body {{ font-size: 11pt; }} main {{ max-width: none; padding: 0; }}
  .scroll {{ overflow: visible; break-inside: avoid; }}
  h2, h3 {{ break-after: avoid; }}
  tr {{ break-inside: avoid; }}
  details::details-content {{ content-visibility: visible; block-size: auto; }}
  * {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
}}
"""


def ramp(share: float) -> tuple[str, str]:
    """Return background and ink of a cell, white at 0 to dark blue at 1; the ink keeps a contrast of 4.5 or more."""
    share = min(max(share, 0.0), 1.0)
    end = (0, 62, 107)
    level = share**0.7  # rare confusions stay visible
    background = "#" + "".join(f"{round(255 + (stop - 255) * level):02x}" for stop in end)
    return background, "#ffffff" if level > 0.55 else INK
