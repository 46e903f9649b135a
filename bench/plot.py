"""Small SVG charts for the documentation: bars and lines, readable on light and dark pages."""

from html import escape
from pathlib import Path

COLOURS = ["#3b82c4", "#d97706", "#2f9e6e", "#b5527a", "#7c6fd0", "#8a8f98"]
STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #444c56 }
.title { font-size: 14px; font-weight: 600 }
.small { font-size: 11px }
.axis { stroke: #8a929b; stroke-width: 1 }
.grid { stroke: #8a929b; stroke-opacity: .28 }
@media (prefers-color-scheme: dark) { text { fill: #c9d1d9 } }
</style>"""


def steps(largest):
    """Round numbers from 0 to a little above the largest."""
    unit = 10 ** (len(str(int(largest))) - 1) if largest >= 1 else 0.1
    step = next(unit * factor for factor in (0.2, 0.5, 1, 2, 5, 10) if largest / (unit * factor) <= 6)
    count = int(largest / step) + 1
    return [step * number for number in range(count + 1)]


def number(value):
    return f"{value:g}" if value != int(value) else f"{int(value):,}".replace(",", " ")


class Chart:
    def __init__(self, title, width=760, height=320):
        self.title, self.width, self.height = title, width, height
        self.parts = [f'<text class="title" x="12" y="20">{escape(title)}</text>']

    def text(self, x, y, text, anchor="start", kind=""):
        self.parts.append(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')

    def line(self, x1, y1, x2, y2, kind="axis"):
        self.parts.append(f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def save(self, path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        body = "\n".join(self.parts)
        Path(path).write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{escape(self.title)}">\n{STYLE}\n{body}\n</svg>\n'
        )


def bars(path, title, unit, rows):
    """`rows`: (label, value, lowest, highest), one bar each, the range as a whisker."""
    left, top, row = 210, 40, 24
    chart = Chart(title, height=top + row * len(rows) + 40)
    ticks = steps(max(high for *_, high in rows))
    scale = (chart.width - left - 70) / ticks[-1]
    bottom = top + row * len(rows)
    for tick in ticks:
        chart.line(left + tick * scale, top - 4, left + tick * scale, bottom, "grid")
        chart.text(left + tick * scale, bottom + 16, number(tick), "middle", "small")
    chart.text(chart.width - 12, bottom + 32, unit, "end", "small")
    for at, (label, value, low, high) in enumerate(rows):
        y = top + row * at
        colour = COLOURS[0] if label.startswith("pgstow") else COLOURS[5]
        chart.parts.append(f'<rect x="{left}" y="{y}" width="{value * scale:.1f}" height="16" rx="2" fill="{colour}"/>')
        if high > low:
            chart.line(left + low * scale, y + 8, left + high * scale, y + 8)
        chart.text(left - 8, y + 12, label, "end")
        chart.text(left + high * scale + 6, y + 12, f"{value:.1f}", kind="small")
    chart.save(path)


def lines(path, title, x_unit, y_unit, points, series):
    """`series`: {name: [value per point, or None]}. Points stand at equal distances: each is a
    multiple of the one before."""
    chart = Chart(title)
    left, top, right, bottom = 60, 40, chart.width - 190, chart.height - 50
    ticks = steps(max(value for values in series.values() for value in values if value is not None))
    y_of = lambda value: bottom - value / ticks[-1] * (bottom - top)
    x_of = lambda at: left + (right - left) * at / max(len(points) - 1, 1)
    for tick in ticks:
        chart.line(left, y_of(tick), right, y_of(tick), "grid")
        chart.text(left - 6, y_of(tick) + 4, number(tick), "end", "small")
    chart.text(left - 40, top - 8, y_unit, kind="small")
    for at, point in enumerate(points):
        chart.text(x_of(at), bottom + 18, str(point), "middle", "small")
    chart.text((left + right) / 2, bottom + 36, x_unit, "middle", "small")
    chart.line(left, bottom, right, bottom)
    labels = []
    for colour, (name, values) in zip(COLOURS, series.items()):
        known = [(x_of(at), y_of(value)) for at, value in enumerate(values) if value is not None]
        path_text = " ".join(f"{x:.1f},{y:.1f}" for x, y in known)
        chart.parts.append(f'<polyline points="{path_text}" fill="none" stroke="{colour}" stroke-width="2"/>')
        chart.parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in known]
        labels.append((known[-1][1], name, colour))
    y = 0
    for wanted, name, colour in sorted(labels):
        y = max(wanted, y + 15)
        chart.parts.append(f'<circle cx="{right + 14}" cy="{y:.1f}" r="4" fill="{colour}"/>')
        chart.text(right + 24, y + 4, name)
    chart.save(path)
