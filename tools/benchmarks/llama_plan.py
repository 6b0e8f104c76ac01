"""Plan the pruning of Llama-3-8B and 70B on the meta device: ``analysis_struct.py --meta``.

459,008 and 2,294,400 units, random scores, no weights. Each run is a fresh process that does all of
it, imports included, and writes report and tables; importing alone is timed beside it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, save, spread

TOOL = ROOT / 'tools' / 'analysis_struct.py'
CONFIGS = ROOT / 'projects' / 'configs' / 'LLM'
IMPORTS = 'import mmengine.hooks, torch; from transformers import LlamaForCausalLM'


def run(command: list[str]) -> dict[str, float]:
    """Run a process: wall time, time on the processor, and peak memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT)
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(said.decode()[-2000:])
    return dict(
        wall=time.perf_counter() - start,
        cpu=used.ru_utime + used.ru_stime,
        peak_mb=used.ru_maxrss / 1024,
    )


def summary(runs: list[dict[str, float]]) -> dict:
    """Wall and processor seconds, and the largest peak."""
    return dict(
        process_seconds=spread([r['wall'] for r in runs]),
        cpu_seconds=spread([r['cpu'] for r in runs]),
        peak_mb=max(r['peak_mb'] for r in runs),
    )


def plan(config: str, ratio: float, folder: Path) -> tuple[dict[str, float], dict]:
    """One run of the tool, and its report."""
    command = [sys.executable, str(TOOL), str(CONFIGS / f'{config}.py'), '--meta']
    measured = run([*command, '--pruning-ratio', str(ratio), '--output-dir', str(folder)])
    return measured, json.loads((folder / 'report.json').read_text())


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=3, help='runs of each; default: 3')
    parser.add_argument('--ratio', type=float, default=0.25, help='fraction removed; default: 0.25')
    args = parser.parse_args()
    measured: dict[str, list] = {'imports': [], 'llama3_8b': [], 'llama3_70b': []}
    reports: dict[str, list[dict]] = {}
    for _ in range(args.rounds):
        measured['imports'].append(run([sys.executable, '-c', IMPORTS]))
        for config in ('llama3_8b', 'llama3_70b'):
            with tempfile.TemporaryDirectory() as folder:
                times, report = plan(config, args.ratio, Path(folder))
            measured[config].append(times)
            reports.setdefault(config, []).append(report)
    models = {}
    for config, own in reports.items():
        totals = sorted(own, key=lambda report: sum(report['seconds'].values()))
        report = totals[len(totals) // 2]
        models[config] = dict(
            **summary(measured[config]),
            units=sum(group['size'] for group in report['groups']),
            params=dict(dense=report['dense']['params'], slim=report['pruned']['params']),
            flops=dict(dense=report['dense']['flops'], slim=report['pruned']['flops']),
            removed=report['achieved']['params'],
            planned_seconds=spread([sum(r['seconds'].values()) for r in own]),
            seconds=report['seconds'],
            fsdp2_gib_on_8={
                row['model']: row['total']
                for row in report['memory']
                if row['strategy'] == 'FSDP2' and row['ranks'] == 8
            },
        )
    result = dict(ratio=args.ratio, imports=summary(measured['imports']), models=models)
    save('llama_plan', result)


if __name__ == '__main__':
    main()
