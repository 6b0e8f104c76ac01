"""The parts of an HTML page: every text that comes in is escaped, every string that goes out is HTML.

The page needs nothing from elsewhere: no font, no picture and no script that isn't inside, and it says so
to the browser, which refuses whatever would be loaded or run after all.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from string import Template

STYLE = """
:root { color-scheme: light dark; --page: #f4f6f8; --card: #fff; --text: #1a202c; --soft: #566173;
  --line: #dde2e8; --track: #e4e7eb; --fill: #2b6cb0; --note: #fdf4e7; --edge: #c05621;
  --shade: #0006; }
@media (prefers-color-scheme: dark) { :root { --page: #12151a; --card: #1b2027; --text: #e5e9ef;
  --soft: #a3adbb; --line: #313944; --track: #2f3742; --fill: #63a4e8; --note: #2c2418;
  --edge: #dd8a4e; --shade: #fff6; }
  figure img { filter: invert(.9) hue-rotate(180deg); } }
* { box-sizing: border-box; }
body { margin: 0; padding: clamp(.75rem, 3vw, 2.5rem) clamp(.75rem, 3vw, 2rem); color: var(--text);
  background: var(--page); font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", sans-serif;
  overflow-wrap: anywhere; -webkit-text-size-adjust: 100%; }
main { max-width: 66rem; margin: 0 auto; }
h1 { margin: 0 0 .5rem; font-size: clamp(1.4rem, 1.1rem + 1.4vw, 2rem); line-height: 1.2; }
h2 { margin: 0 0 .75rem; font-size: 1.15rem; }
p { margin: .5rem 0; }
.lead { max-width: 52rem; font-size: 1.1rem; }
.soft { color: var(--soft); font-size: .9rem; }
.note { padding: .6rem .9rem; border-left: 4px solid var(--edge); background: var(--note); }
section { margin-top: 1.25rem; padding: clamp(.9rem, 2.5vw, 1.5rem); border-radius: .6rem;
  border: 1px solid var(--line); background: var(--card); }
.scroll { overflow-x: auto; overflow-wrap: normal; background:
  linear-gradient(to right, var(--card) 30%, transparent) 0 0 / 2rem 100% no-repeat local,
  linear-gradient(to left, var(--card) 30%, transparent) 100% 0 / 2rem 100% no-repeat local,
  linear-gradient(to right, var(--shade), transparent) 0 0 / .8rem 100% no-repeat scroll,
  linear-gradient(to left, var(--shade), transparent) 100% 0 / .8rem 100% no-repeat scroll; }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--fill); }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .75rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
tr > :first-child { padding-left: 0; text-align: left; }
tr > :last-child { padding-right: 0; }
tr:last-child > * { border-bottom: 0; }
thead th { color: var(--soft); font-size: .9rem; }
tbody tr:last-child > * { border-bottom: 0; }
tbody th { font-weight: 500; }
tr > :first-child { position: sticky; left: 0; background: var(--card); }
details + details { margin-top: 1rem; }
summary { cursor: pointer; font-weight: 600; }
.bars { margin: .6rem 0 0; padding: 0; list-style: none; font-size: .9rem; }
.bars li { display: grid; grid-template-columns: minmax(0, 6fr) minmax(0, 5fr) minmax(10rem, 3fr);
  gap: .1rem 1rem; align-items: center; padding: .15rem 0; }
.bars span:last-child { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.bar { display: block; width: 100%; height: .8rem; border-radius: .2rem; }
.track { fill: var(--track); }
.fill { fill: var(--fill); }
figure { margin: 1rem 0 0; }
figcaption { margin-bottom: .4rem; color: var(--soft); font-size: .9rem; }
img { display: block; max-width: 100%; height: auto; padding: .5rem; border-radius: .4rem;
  border: 1px solid var(--line); background: #fff; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) minmax(0, 1fr);
  gap: .3rem 1.25rem; margin: .75rem 0; font-size: .95rem; }
dt { color: var(--soft); }
dd { margin: 0; }
h3 { margin: 1rem 0 .4rem; font-size: .95rem; }
pre { margin: 0; padding: .75rem; border-radius: .4rem; background: var(--page); font-size: .85rem;
  font-family: ui-monospace, Consolas, "DejaVu Sans Mono", monospace; white-space: pre-wrap; }
@media (max-width: 40rem) {
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table, tbody { display: block; }
  tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line); }
  tbody tr:last-child { border-bottom: 0; }
  th, td, tr > :first-child, tr > :last-child { padding: 0; border: 0; white-space: normal; }
  tr > :first-child { display: block; position: static; font-weight: 600; }
  td { display: flex; justify-content: space-between; gap: .5rem; text-align: right; }
  td::before { content: attr(data-label); color: var(--soft); font-size: .9rem; text-align: left; }
  td:empty { display: none; }
  .wide img { max-width: none; width: 44rem; }
  figure:has(.wide) figcaption::after { content: " (scroll sideways)"; }
  .bars li { grid-template-columns: minmax(0, 1fr) max-content; padding: .3rem 0; }
  .bars span:last-child { grid-area: 1 / 2; }
  .bars .bar { grid-area: 2 / 1 / auto / -1; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dd { margin-bottom: .5rem; }
}
@media print { section { break-inside: avoid-page; } }
"""

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'$policy">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
$body
</main>
</body>
</html>
""")


def page(title: str, body: Iterable[str], style: str = '', policy: str = '') -> str:
    """A whole page around parts that are HTML already.

    Args:
        title: Of the page.
        body: Its parts.
        style: More rules of the style sheet.
        policy: What its parts need beside pictures and styles, as in a Content-Security-Policy.
    """
    return PAGE.substitute(
        title=escape(title),
        style=STYLE + style,
        policy=f'; {policy}' if policy else '',
        body='\n'.join(body),
    )


def section(title: str, *parts: str) -> str:
    """A card with a heading, around parts that are HTML already; empty without parts."""
    inner = '\n'.join(part for part in parts if part)
    return f'<section>\n<h2>{escape(title)}</h2>\n{inner}\n</section>' if inner else ''


def text(content: str, kind: str = '', tag: str = 'p') -> str:
    """A paragraph, or another element; ``kind`` is its class in the style sheet."""
    attribute = f' class="{escape(kind)}"' if kind else ''
    return f'<{tag}{attribute}>{escape(content)}</{tag}>'


def table(label: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in a box of its own, in which it scrolls; the first column names the rows.

    On a phone each row is a card, in which every value has its column's title beside it.
    """
    titles = ''.join(
        f'<th scope="col" role="columnheader">{escape(title)}</th>' for title in header
    )
    lines = []
    for name, *values in rows:
        cells = ''.join(
            f'<td role="cell" data-label="{escape(column)}">{escape(value)}</td>'
            for column, value in zip(header[1:], values, strict=True)
        )
        lines.append(
            f'<tr role="row"><th scope="row" role="rowheader">{escape(name)}</th>{cells}</tr>'
        )
    body = '\n'.join(lines)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">\n'
        f'<table role="table">\n<thead role="rowgroup"><tr role="row">{titles}</tr></thead>\n'
        f'<tbody role="rowgroup">\n{body}\n</tbody>\n</table>\n</div>'
    )


def bars(rows: Iterable[tuple[str, float, str]]) -> str:
    """One bar per row: its name, how much of the bar is filled, from 0 to 1, and the figures.

    A name too long for its line is broken behind a dot where possible.
    """
    lines = []
    for name, share, figures in rows:
        lines.append(
            f'<li><span>{escape(name).replace(".", ".<wbr>")}</span>'
            '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
            '<rect class="track" width="100" height="8"/>'
            f'<rect class="fill" width="{100 * share:.2f}" height="8"/></svg>'
            f'<span>{escape(figures)}</span></li>'
        )
    return '<ul class="bars">\n' + '\n'.join(lines) + '\n</ul>'


def folded(title: str, inner: str, unfolded: bool) -> str:
    """A part, HTML already, that can be folded in below its title."""
    state = ' open' if unfolded else ''
    return f'<details{state}>\n<summary>{escape(title)}</summary>\n{inner}\n</details>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Terms and what is to be said of them."""
    lines = [f'<dt>{escape(term)}</dt><dd>{escape(said)}</dd>' for term, said in pairs]
    return '<dl>\n' + '\n'.join(lines) + '\n</dl>' if lines else ''


def picture(caption: str, png: bytes) -> str:
    """A PNG inside the page; on a phone it is scrolled, so that its letters can be read."""
    data = b64encode(png).decode('ascii')
    return (
        f'<figure>\n<figcaption>{escape(caption)}</figcaption>\n'
        f'<div class="scroll wide" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}"></div>\n</figure>'
    )
