"""The part of a report's page that plans at other ratios, in the browser."""

import json
import re
import shlex
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from ...common.json_csv import to_json_data
from ..run_report import RunReport

PAGE = Path(__file__).parent / 'page'
SCRIPT = (PAGE / 'explorer.js').read_text(encoding='utf-8')
STYLE = (PAGE / 'explorer.css').read_text(encoding='utf-8')
#: What a page's policy has to allow for the script to run: this script and no other.
POLICY = f"script-src 'sha256-{b64encode(sha256(SCRIPT.encode()).digest()).decode('ascii')}'"
DATA = re.compile(r'<script type="application/json" id="explorer-data">(.*?)</script>', re.DOTALL)


def explorer_section(
    report: RunReport, data: Mapping[str, Any], curve: Mapping[str, Any] | None = None
) -> str:
    """The section as HTML.

    Args:
        report: The run's; its stages are measured points.
        data: From :func:`projects.prune_plugin.workflows.explorer_data.explorer_data`.
        curve: Content of a ``curve.json`` of the same model, for more points.
    """
    words = ['python', 'tools/analysis_struct.py', report.config or 'CONFIG']
    words += [report.checkpoint] if report.checkpoint else []
    content = {
        **data,
        'points': points(report, curve),
        'headline': dict(report.headline),
        'command': shlex.join([*words, '--output-dir', 'DIRECTORY']),
    }
    environment = Environment(loader=FileSystemLoader(PAGE), autoescape=True)
    text = json.dumps(to_json_data(content), separators=(',', ':')).replace('<', '\\u003c')
    template = environment.get_template('explorer.html.j2')
    return template.render(data=Markup(text), script=Markup(SCRIPT))


def points(report: RunReport, curve: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Models that were measured: parameters, FLOPs, milliseconds and metrics, as far as known."""
    found = [
        dict(
            label=label,
            params=stage.params,
            flops=stage.flops,
            latency=stage.latency_ms,
            metrics=stage.metrics,
            trained=label == 'recovered',
        )
        for label, stage in report.stages().items()
    ]
    series, dense = (curve['series'][0] if curve else None), report.dense.latency_ms
    for row in curve['rows'] if curve else ():
        if row['series'] != series or not row['params']:
            continue
        own, timed = row['latency_ms'], row['dense_latency_ms']
        found.append(
            dict(
                label=f'{series} at {row["ratio"]:g}',
                params=row['params'],
                flops=row['flops'],
                latency=dense * own / timed if dense and own and timed else None,
                metrics=row['metrics'],
                trained=False,
            )
        )
    return found


def read_explorer(path: Path) -> dict[str, Any] | None:
    """The data of the explorer in an earlier page; None if there is none."""
    try:
        found = DATA.search(path.read_text(encoding='utf-8'))
        return json.loads(found[1]) if found else None
    except (OSError, ValueError):
        return None
