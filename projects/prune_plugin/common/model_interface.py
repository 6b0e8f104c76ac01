"""What models, modules, metrics and data sets may offer: each name that they are asked for.

Everything in the protocols is optional: a class has what it can say, and a function below gives the rest a
default. No other module of the engine asks for these names by ``getattr`` or ``hasattr``.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

#: Samples per call when timing a model that names no number.
USUAL_BATCH_SIZE = 8


class ModelOffers(Protocol):
    """What the model of a family may have."""

    def dummy_inputs(self, batch_size: int) -> Mapping[str, Any]:
        """Keyword arguments of one forward call, for FLOPs, latency and export without data.

        A property that gives them for one batch size, as Hugging Face's models have it, will do.
        """

    def checkpoint_meta(self) -> Mapping[str, Any]:
        """Plain data kept in every checkpoint's ``meta``: what the weights depend on."""

    def adapt_checkpoint(self, checkpoint: Mapping, path: str | os.PathLike) -> Mapping[str, Any]:
        """The checkpoint as the model wants it: tensors renamed or dropped.

        Raises:
            UserError: the weights are of no use to the model as it is configured.
        """

    def init_weights(self) -> None:
        """Initialise the weights: at random, or from where :attr:`weights_source` says.

        Raises:
            UserError: the weights can't be had.
        """

    @property
    def weights_source(self) -> str | None:
        """Where :meth:`init_weights` takes pretrained weights from; None: they are random."""

    @property
    def profile_batch_size(self) -> int:
        """Samples per call when timing."""

    def loss_task(self, name: str) -> str:
        """The task of a loss, by its name: what ``calibration.loss_weights`` goes by."""

    @property
    def distill_targets(self) -> Sequence[Mapping[str, Any]]:
        """What a pruned model copies from the dense one, as in ``recovery.distill.targets``."""

    @property
    def distill_shared(self) -> Sequence[str]:
        """Names of modules whose random output the teacher takes from the student."""

    @property
    def evaluators(self) -> Mapping[str, Any]:
        """Evaluations that are no metric, by the name that ``--eval NAME:ARGUMENT`` gives them.

        Each is a function of the argument, with a method ``check(argument)``.
        """

    def save_hf(self, folder: str) -> None:
        """Write the model as a Hugging Face folder, for ``--save-hf``."""

    def weight_folder(self) -> tuple[str | os.PathLike, Callable[[str], str]]:
        """A folder of safetensors files with the weights, for ``execution.mode='streamed'``.

        Returns:
            The folder, and a function that gives the model's name of a tensor by its name in a file.

        Raises:
            UserError: the weights lie elsewhere, or in files of another kind.
        """

    def saved_names(self) -> Mapping[str, str]:
        """The name in a Hugging Face folder of each tensor that one would hold, by its name in the model.

        Raises:
            UserError: no such folder can describe the model.
        """

    def save_description(self, folder: str | os.PathLike, zeros: int) -> None:
        """Write what a Hugging Face folder has beside weights, of which so many are zero."""

    def export_view(self) -> Any:
        """A module that computes the same from tensors alone, for ``--save-onnx`` and ``--save-exported``.

        It has ``export_example(seed)``, the keyword arguments of a call, all of one size.
        """

    @property
    def engine_files(self) -> Sequence[str]:
        """How files of other engines end, such as ``.onnx``, whose networks :meth:`use_network` takes."""

    def use_network(self, network: Any) -> None:
        """Have a module that another engine runs compute the raw outputs, for evaluating exported files."""

    def tokens_per_second(self) -> float:
        """How many tokens a second a language model writes, one text at a time, for comparisons."""

    def save_gguf(self, path: str, kind: str) -> None:
        """Write the model as a file for llama.cpp, for ``--save-gguf``."""

    @staticmethod
    def check_gguf(model: Mapping[str, Any], kind: str) -> None:
        """Raise ``UserError`` if the config ``model`` can't be written so."""


class SlimModelHas(Protocol):
    """What ``SlimModel`` sets on the model that it has cut."""

    @property
    def prune_state(self) -> Any:
        """Which units are left, a ``PruneState``."""


class ModuleOffers(Protocol):
    """What a module that owns unit groups may have."""

    def unit_usage(self, output: Any) -> Mapping[str, Any]:
        """How much each unit was used, by kind of unit, from the module's output; see ``Usage``."""


class MetricOffers(Protocol):
    """What the class of a metric may have."""

    @property
    def headline(self) -> Mapping[str, str]:
        """Its results worth looking at first, without prefix, each with ``'max'`` or ``'min'``."""

    @property
    def default_prefix(self) -> str | None:
        """What stands before the names of its results where a config names no ``prefix``."""


class DatasetOffers(Protocol):
    """What a data set may have."""

    def full_init(self) -> None:
        """Read its annotations, if that is yet to be done."""

    @property
    def metainfo(self) -> Mapping[str, Any]:
        """What metrics want to know of the data, such as the names of classes."""


def offers_dummy_inputs(model: Any) -> bool:
    """Whether a model, or its class, gives an example input."""
    return getattr(model, 'dummy_inputs', None) is not None


def dummy_inputs_of(model: Any, batch_size: int) -> Mapping[str, Any]:
    """Keyword arguments of one forward call of a model that :func:`offers_dummy_inputs`."""
    dummy = model.dummy_inputs
    return dummy(batch_size) if callable(dummy) else dummy


def checkpoint_meta_of(model: Any) -> dict[str, Any]:
    """What a model wants kept beside its weights; nothing if it doesn't say."""
    describe = getattr(model, 'checkpoint_meta', None)
    return {} if describe is None else dict(describe())


def checkpoint_for(model: Any, checkpoint: Mapping, path: str | os.PathLike) -> dict[str, Any]:
    """A checkpoint as the model wants it; as it is if the model doesn't say."""
    adapt = getattr(model, 'adapt_checkpoint', None)
    return dict(checkpoint if adapt is None else adapt(checkpoint, path))


def init_weights_of(model: Any) -> None:
    """Have a model initialise its weights, if it can."""
    if hasattr(model, 'init_weights'):
        model.init_weights()


def weights_source_of(model: Any) -> str | None:
    """Where a model takes pretrained weights from; None: from nowhere."""
    return getattr(model, 'weights_source', None)


def profile_batch_size_of(model: Any) -> int:
    """Samples per call when timing a model."""
    return getattr(model, 'profile_batch_size', USUAL_BATCH_SIZE)


def loss_task_of(model: Any) -> Callable[[str], str] | None:
    """The function that returns the task of a loss by the loss's name; None if the model knows no tasks."""
    return getattr(model, 'loss_task', None)


def distill_targets_of(model: Any) -> Sequence[Mapping[str, Any]]:
    """What a pruned model copies from the dense one; nothing if the model doesn't say."""
    return getattr(model, 'distill_targets', None) or ()


def distill_shared_of(model: Any) -> Sequence[str]:
    """Modules whose output the teacher takes from the student."""
    return getattr(model, 'distill_shared', ())


def evaluators_of(model: Any) -> Mapping[str, Any]:
    """A model's own evaluations, by name."""
    return getattr(model, 'evaluators', None) or {}


def offers_save_hf(model: Any) -> bool:
    """Whether a model, or its class, can be saved as a Hugging Face folder."""
    return hasattr(model, 'save_hf')


def offers_streaming(model: Any) -> bool:
    """Whether a model, or its class, can be read and saved block by block."""
    return hasattr(model, 'weight_folder')


def weight_folder_of(model: Any) -> tuple[str | os.PathLike, Callable[[str], str]]:
    """Where the files of a model that :func:`offers_streaming` lie, and its names of their tensors."""
    return model.weight_folder()


def saved_names_of(model: Any) -> dict[str, str]:
    """Names of tensors in the folder to save a model as, by those in the model."""
    return dict(model.saved_names())


def save_description_of(model: Any, folder: str | os.PathLike, zeros: int) -> None:
    """Write a model's folder without its weights."""
    model.save_description(folder, zeros)


def offers_save_gguf(model: Any) -> bool:
    """Whether a model, or its class, can be saved as a file for llama.cpp."""
    return hasattr(model, 'save_gguf')


def export_view_of(model: Any) -> Any:
    """What to trace in the place of a model: what its ``export_view`` gives, or the model itself."""
    view = getattr(model, 'export_view', None)
    return model if view is None else view()


def offers_export_view(model: Any) -> bool:
    """Whether a model, or its class, has something else than itself to trace."""
    return hasattr(model, 'export_view')


def engine_files_of(model: Any) -> Sequence[str]:
    """How files of other engines end that a model, or its class, can be evaluated from."""
    return getattr(model, 'engine_files', ())


def tokens_per_second_of(model: Any) -> float | None:
    """How fast a model writes text; None if it doesn't say."""
    measure = getattr(model, 'tokens_per_second', None)
    return None if measure is None else measure()


def prune_state_on(model: Any) -> Any:
    """The ``PruneState`` of a slim model; None for a dense one."""
    return getattr(model, 'prune_state', None)


def unit_usage_of(module: Any) -> Callable[[Any], Mapping[str, Any]] | None:
    """The function that counts how a module's units were used, from its output; None if there is none."""
    return getattr(module, 'unit_usage', None)


def headline_of(metric: Any) -> Mapping[str, str] | None:
    """The results that the class of a metric puts first; None if it doesn't say."""
    return getattr(metric, 'headline', None)


def default_prefix_of(metric: Any) -> str | None:
    """The prefix of a metric's results, by its class."""
    return getattr(metric, 'default_prefix', None)


def read_fully(dataset: Any) -> None:
    """Have a data set read its annotations, if it does so by itself."""
    if hasattr(dataset, 'full_init'):
        dataset.full_init()


def metainfo_of(dataset: Any) -> Mapping[str, Any] | None:
    """The metadata that a data set gives to metrics; None if it has none."""
    return getattr(dataset, 'metainfo', None)
