"""Packaging of mm-prune. What is pinned, and for whom, stands in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_namespace_packages, setup

ROOT = Path(__file__).resolve().parent

# mmengine and mmcv are not here on purpose: the maintained fork of mmengine is another distribution
# (onedl-mmengine) of the same module, and naming either would install it over the other one. With a
# working OpenMMLab stack this is all there is to install; `make venv` adds `mm` and builds mmcv.
REQUIRES = ['greenlet', 'jinja2', 'numpy', 'rich', 'torch>=2.6']

FEATURES = {
    'vit': ['pillow', 'pyarrow', 'scikit-learn', 'timm>=1.0', 'torchvision'],
    'llm': ['accelerate', 'datasets', 'gguf', 'peft', 'pyarrow', 'transformers>=5'],
    # What mmdet3d, nuscenes-devkit and lyft_dataset_sdk import. They themselves pin numpy 1 or
    # bring open3d and a second OpenCV, so `make venv` adds them with --no-deps. mmdet3d also asks
    # for plyfile (GPL-3.0), which none of its modules imports.
    'vad': [
        'cachetools',
        'descartes',
        'fire',
        'networkx',
        'numba',
        'pandas',
        'parameterized',
        'plotly',
        'pycocotools',
        'pyquaternion',
        'scikit-image',
        'scikit-learn',
        'scipy',
        'shapely>=2',
        'tensorboard',
        'tqdm',
        'trimesh',
    ],
    'coupled': ['torch-pruning>=1.6'],
    'export': ['onnx', 'onnxruntime', 'onnxscript'],
    'plots': ['matplotlib'],
}
EXTRAS = {
    **FEATURES,
    'mm': ['mmdet>=3.3', 'onedl-mmengine>=0.10.12', 'opencv-python-headless'],
    'test': [
        'hypothesis',
        'psutil',
        'pytest>=8',
        'pytest-xdist',
        'safetensors',
        'transformers>=5',
    ],
    # Accessibility, in the browser tests; Chromium comes from the system.
    'browser': ['axe-core-python'],
    # Another engine to measure latency in.
    'openvino': ['openvino'],
    # Runs what --save-gguf writes, to check it.
    'llamacpp': ['gguf', 'xllamacpp'],
    # Zero-shot tasks; it brings some thirty packages of its own, so neither `llm` nor `all` has it.
    'lm_eval': ['lm-eval>=0.4.9'],
    # What runs the notebooks of docs/tutorials.
    'docs': ['ipykernel', 'nbclient', 'nbformat'],
    'dev': ['codespell', 'import-linter', 'mypy', 'pre-commit', 'ruff'],
    'all': sorted({name for names in FEATURES.values() for name in names}),
}


def read_version() -> str:
    """The version, read as text: importing the package would need torch and mmengine."""
    text = (ROOT / 'projects' / 'prune_plugin' / 'common' / 'version.py').read_text(
        encoding='utf-8'
    )
    return re.search(r"^__version__ = '([^']+)'$", text, re.MULTILINE)[1]


def read_readme() -> str:
    """The long description, empty where there is no README."""
    readme = ROOT / 'README.md'
    return readme.read_text(encoding='utf-8') if readme.is_file() else ''


setup(
    name='mm-prune',
    version=read_version(),
    description='Structured and weight-level pruning for OpenMMLab, timm and Hugging Face models',
    long_description=read_readme(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.11',
    # `projects` is a namespace package, and its configs are Python files, so they ship as modules.
    # The explicit root makes an editable install a path entry: a family added later is found.
    package_dir={'': '.'},
    packages=find_namespace_packages(
        include=['mm_prune', 'projects', 'projects.*'],
        exclude=['*.__pycache__', '*.__pycache__.*'],
    ),
    package_data={'projects.prune_plugin.workflows.reports': ['page/*']},
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    zip_safe=False,
    classifiers=[
        'License :: OSI Approved :: Apache Software License',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3.11',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
