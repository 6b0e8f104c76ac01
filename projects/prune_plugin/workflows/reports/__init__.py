"""What a run leaves behind: tables, JSON, pictures, and a table for the terminal."""

from ...common.json_csv import write_csv, write_json
from .comparison import print_comparison, write_comparison
from .console import print_groups, print_kinds, print_memory, print_report, print_streamed
from .curve import (
    format_point,
    plot_curves,
    print_curve,
    read_curve,
    write_curve,
    write_curves_csv,
)
from .evaluation_bar import evaluation_bar
from .explorer import read_explorer
from .heatmap import plot_sensitivity
from .html import write_html
from .plots import write_plots
from .rounds import print_history, write_history, write_states
from .search import plot_search, print_search, write_search
from .sensitivity import format_row, print_sensitivity, write_sensitivity
from .summary import write_summary
from .tables import UnitTable, read_scores, write_groups

__all__ = [
    'UnitTable',
    'evaluation_bar',
    'format_point',
    'format_row',
    'plot_curves',
    'plot_search',
    'plot_sensitivity',
    'print_comparison',
    'print_curve',
    'print_groups',
    'print_history',
    'print_kinds',
    'print_memory',
    'print_streamed',
    'print_report',
    'print_search',
    'print_sensitivity',
    'read_curve',
    'read_explorer',
    'read_scores',
    'write_comparison',
    'write_csv',
    'write_curve',
    'write_curves_csv',
    'write_groups',
    'write_history',
    'write_states',
    'write_html',
    'write_json',
    'write_plots',
    'write_search',
    'write_sensitivity',
    'write_summary',
]
