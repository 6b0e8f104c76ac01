"""Section of docs/benchmarks.md on how long the benchmarks take."""

from tables import result, table


def bench_times() -> str:
    """Section on the parts of `make bench`."""
    r = result('bench_times')
    rows = [
        [name, 'left out: no data' if seconds is None else f'{seconds:,.0f}']
        for name, seconds in r['seconds'].items()
    ]
    rows.append(['**all**', f'**{r["total"]:,.0f}** ({r["total"] / 60:.0f} minutes)'])
    return f"""## How long `make bench` takes

Seconds of each part with {r['environment']['threads']} threads, one part after the other.

{table(['part', 's'], rows)}
"""


SECTIONS = dict(bench_times=bench_times)
