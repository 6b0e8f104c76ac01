"""``tools/analysis_struct.py`` under the name that the VAD guide uses; same arguments, same results."""

import runpy
from pathlib import Path

if __name__ == '__main__':
    runpy.run_path(
        str(Path(__file__).resolve().parents[1] / 'analysis_struct.py'), run_name='__main__'
    )
