"""What a run leaves behind: tables, JSON, pictures, and a table for the terminal."""

from .console import print_groups, print_report
from .formats import write_csv, write_json
from .plots import write_plots
from .tables import UnitTable, read_scores, write_groups

__all__ = [
    'UnitTable',
    'print_groups',
    'print_report',
    'read_scores',
    'write_csv',
    'write_groups',
    'write_json',
    'write_plots',
]
