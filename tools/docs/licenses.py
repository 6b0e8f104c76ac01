"""Write docs/licenses.md: the licences of what constraints.txt pins, from the installed metadata."""

import re
import sys
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs' / 'licenses.md'
CONSTRAINTS = ROOT / 'constraints.txt'
LONGEST = 80
VAGUE = ('', 'UNKNOWN')
#: Licences that ask for more than that their notice is kept, as they are called in metadata.
RESTRICTED = re.compile(
    r'GPL|GNU|MPL|Mozilla|EPL|CDDL|NonCommercial|non-commercial|proprietary', re.I
)
#: Where the metadata have no licence, contradict themselves, or are not installed by `make venv`.
STATED = {
    'lm-eval': 'MIT',
    'nuscenes-devkit': "Apache-2.0 (a classifier says 'Free for non-commercial use')",
    'onedl-mmengine': 'Apache-2.0',
    'pip-audit': 'Apache-2.0',
}
#: What a restricted licence means here. Of packages whose wheel has restricted libraries in it, too.
NOTES = {
    'certifi': 'Root certificates. Used as it is, nothing follows; changed files stay under the MPL.',
    'codespell': 'A program that `make lint` starts; nothing of it is imported or passed on.',
    'hypothesis': 'Imported by tests only.',
    'lyft_dataset_sdk': 'No commercial use. mmdet3d imports it for its Lyft metric, so importing mmdet3d '
    'needs it, and with it the VAD family and pruning of mmdet3d models; the ViT and LLM families and '
    "mmdet models do not. In a product, take `lyft_metric` out of mmdet3d's `evaluation/metrics` and "
    'leave this package away.',
    'nuscenes-devkit': 'The code comes with the text of Apache-2.0. The data set nuScenes has terms of its '
    'own, which forbid commercial use.',
    'opencv-python-headless': "The wheel contains FFmpeg's libraries under LGPL-2.1: whoever passes them "
    'on adds that licence and lets them be replaced.',
    'pathspec': 'Part of mypy, which `make types` starts; nothing of it is passed on.',
    'pyzmq': 'The wheel contains libzmq under MPL-2.0; used by notebooks only.',
    'shapely': 'The wheel contains GEOS under LGPL-2.1: whoever passes it on adds that licence and lets '
    'it be replaced.',
    'torch': 'On Linux it brings NVIDIA\'s CUDA libraries under NVIDIA\'s own terms (not open source; they '
    'say what may be passed on). A CPU build of torch has none of them.',
    'tqdm': 'Used as it is, nothing follows; changed files stay under the MPL.',
}  # fmt: skip
HEADER = """# Licences

Written by `make docs` from the metadata of the installed packages; don't edit it. The project itself is
under Apache-2.0 (`LICENSE`). It contains none of these packages: `pip` installs them from their own
distributions. Licences stand here as the packages state them; this page is a list, not legal advice.

## Not permissive

The other packages only ask that their notices are kept. These ask for more, by themselves or because of a
library in their wheels:
"""
DATA = """## Data and weights

Data sets (nuScenes, CIFAR-10, WikiText-2) and pretrained weights have terms of their own. A pruned
checkpoint is made from another one: what holds for that one holds for it too.
"""
AUDIT = """## Known vulnerabilities

`make audit` asks an advisory database about every version in the list below, with pip-audit in an
environment of its own. It fails for a finding, and for a package that the database doesn't know: what was
not looked up doesn't count as clean. The pins have not been audited yet: no database could be reached where
they were made.
"""


def pins() -> dict[str, str]:
    """Pinned versions by name, in the order of constraints.txt."""
    text = CONSTRAINTS.read_text(encoding='utf-8')
    return dict(re.findall(r'^([\w.-]+)==(\S+)$', text, re.MULTILINE))


def stated_by(said: PackageMetadata) -> str:
    """The licence that a package's metadata state, the most exact form first; empty if none."""
    short = (said['License'] or '').strip()
    classifiers = [
        text.rpartition(' :: ')[2]
        for text in said.get_all('Classifier') or []
        if text.startswith('License :: ') and text.count(' :: ') > 1
    ]
    if said['License-Expression']:
        return said['License-Expression']
    if short not in VAGUE and '\n' not in short and len(short) <= LONGEST:
        return short
    return ', '.join(classifiers)


def license_of(name: str) -> str:
    """The licence of a pinned package.

    Raises:
        ValueError: it is neither installed with one nor in `STATED`, or it is restricted and has no note.
    """
    try:
        found = STATED.get(name) or stated_by(metadata(name))
    except PackageNotFoundError:
        found = ''
    if not found:
        raise ValueError(
            f'no licence of {name} is known: install it (make venv) or add it to STATED'
        )
    if RESTRICTED.search(found) and name not in NOTES:
        raise ValueError(f'{name} is under {found}: say in NOTES what this means for users')
    return found


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Rows as a Markdown table."""
    lines = [head, ('---',) * len(head), *rows]
    return ''.join('| ' + ' | '.join(line) + ' |\n' for line in lines)


def page() -> str:
    """The whole page."""
    rows = [(name, version, license_of(name)) for name, version in pins().items()]
    noted = [(name, found, NOTES[name]) for name, _, found in rows if name in NOTES]
    parts = [
        HEADER,
        table(('package', 'licence', 'what follows'), noted),
        DATA,
        AUDIT,
        '## Every pinned package\n',
        table(('package', 'version', 'licence'), rows),
    ]
    return '\n'.join(parts)


def main() -> int:
    """Write the page."""
    text = page()
    PAGE.write_text(text, encoding='utf-8')
    print(f'{PAGE.relative_to(ROOT)}: {len(pins())} packages, {len(NOTES)} with a note')
    return 0


if __name__ == '__main__':
    sys.exit(main())
