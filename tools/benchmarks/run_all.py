"""Run benchmarks, one after another, and write docs/benchmarks.md from their results.

By default those that take less than an hour together; with ``--full`` all, which takes hours. A shorter
setting of a long one has a result of its own, so a short run leaves the figures of a long one alone.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import core_tables
import llm_tables
import mm_tables
import side_tables
import ticket_tables
import time_tables
import vad_tables
from parts import LONG, SHORT, Part
from tables import DOCS, has_result, result, wrapped

HERE = Path(__file__).resolve().parent
#: Sections in order; one without a result is left out.
SECTIONS = {
    **side_tables.SECTIONS,
    **core_tables.SECTIONS,
    **vad_tables.SECTIONS,
    **ticket_tables.SECTIONS,
    **llm_tables.SECTIONS,
    **mm_tables.SECTIONS,
    **time_tables.SECTIONS,
}


def run(part: Part) -> float | None:
    """Run a part: its seconds, or None where its data is missing."""
    if not part.can_run:
        print(f'\n{part.name} left out: no {part.needs}', flush=True)
        return None
    script = HERE / f'{part.script}.py'
    print('\n$', 'python', f'tools/benchmarks/{script.name}', *part.arguments, flush=True)
    start = time.perf_counter()
    subprocess.run([sys.executable, str(script), *part.arguments], check=True)
    return time.perf_counter() - start


def write_page() -> None:
    """Write docs/benchmarks.md from the saved results."""
    environment = result('vit_latency')['environment']
    head = f"""# Benchmarks

Written by `make bench` (less than an hour) and `make bench-full` (hours) from the JSON files in
benchmarks/; don't edit it. Machine: {environment['cores']} {environment['machine']} cores,
no GPU; Python {environment['python']}, PyTorch {environment['torch']}. Absolute times vary with the machine
and its load; ratios are of one run.
"""
    sections = [section() for name, section in SECTIONS.items() if has_result(name)]
    (DOCS / 'benchmarks.md').write_text(wrapped('\n'.join([head, *sections])))
    print(f'written to {DOCS / "benchmarks.md"}')


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--only-docs', action='store_true', help='write the page from saved results'
    )
    parser.add_argument('--full', action='store_true', help='the long ones, too')
    parser.add_argument('--parts', nargs='+', help='run these alone, and note no times')
    args = parser.parse_args()
    if args.only_docs:
        write_page()
        return
    parts = {part.name: part for part in (*SHORT, *(LONG if args.full or args.parts else ()))}
    wrong = [name for name in args.parts or () if name not in parts]
    if wrong:
        parser.error(f'--parts has {wrong[0]!r}; valid are {", ".join(parts)}')
    seconds = {name: run(parts[name]) for name in args.parts or parts}
    if not args.parts:
        from common import save

        taken = [value for value in seconds.values() if value is not None]
        name = 'bench_full_times' if args.full else 'bench_times'
        save(name, dict(seconds=seconds, total=sum(taken)))
    write_page()


if __name__ == '__main__':
    main()
