"""Any timm image classifier as an MMEngine model."""

import difflib

import timm
import torch
import torch.nn.functional as F
from mmengine.model import BaseModel, initialize
from mmengine.registry import MODELS
from torch import Tensor

from projects.prune_plugin.common.errors import UserError

from .pretrained import load_pretrained

RESERVED = ('pretrained', 'num_classes', 'checkpoint_path')


@MODELS.register_module()
class TimmClassifier(BaseModel):
    """A timm network (attribute ``backbone``) with cross entropy and softmax scores around it.

    State-dict keys are timm's own behind ``backbone.``, such as
    ``backbone.blocks.0.attn.qkv.weight``. timm initialises the weights when the model is built;
    ``init_weights`` leaves them, and pretrained ones, alone unless there is an ``init_cfg``.

    Args:
        arch: A timm name such as ``vit_small_patch16_224``.
        num_classes: Width of the classifier, at least 1.
        pretrained: None for random weights, a local ``.safetensors`` or ``.pth`` file, a timm hub
            name, or True for the hub's weights of ``arch``. Read by ``init_weights``.
        label_smoothing: In [0, 1), for the training loss.
        cifar_stem: Give a ResNet a first convolution of 3 x 3 and stride 1 and no pooling behind it, as
            ResNets for images of 32 x 32 have; pretrained weights don't fit it.
        data_preprocessor: Config of the preprocessor, usually an ``ImageClsPreprocessor``.
        init_cfg: MMEngine's initialisation config.
        model_kwargs: Passed on to ``timm.create_model``: ``img_size``, ``patch_size``, ``depth``,
            ``num_heads``, ``in_chans``, ``drop_path_rate`` and so on.

    Raises:
        UserError: For an unknown ``arch``, arguments that timm refuses, or ``cifar_stem`` without such
            a stem.

    Example::

        model = dict(
            type='TimmClassifier', arch='vit_small_patch16_224', num_classes=10,
            model_kwargs=dict(img_size=32, patch_size=4),
            data_preprocessor=dict(type='ImageClsPreprocessor', mean=[0.5] * 3, std=[0.5] * 3))
    """

    #: What a pruned model copies from the dense one unless ``recovery.distill.targets`` says more.
    distill_targets = (dict(module='backbone', name='logits', loss='kl', temperature=2.0),)
    engine_files = ('.onnx', '.xml')

    def __init__(
        self,
        arch: str,
        num_classes: int,
        pretrained: str | bool | None = None,
        label_smoothing: float = 0.0,
        cifar_stem: bool = False,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
        model_kwargs: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if not 0.0 <= label_smoothing < 1.0:
            raise UserError(f'model.label_smoothing={label_smoothing!r} must be in [0, 1)')
        self.label_smoothing = label_smoothing
        self.backbone = build_network(arch, num_classes, dict(model_kwargs or {}))
        self.input_shape = input_shape(self.backbone, dict(model_kwargs or {}))
        if cifar_stem:
            replace_stem(self.backbone, arch)
            self.input_shape = (self.input_shape[0], 32, 32)
        self.arch, self.pretrained = arch, pretrained

    @property
    def weights_source(self) -> str | None:
        """Where ``init_weights`` takes weights from; None: they are random."""
        return self.arch if self.pretrained is True else self.pretrained or None

    def init_weights(self) -> None:
        """Apply ``init_cfg`` or load the pretrained weights, once.

        The Runner calls this before training. Building a model for a checkpoint doesn't, so the
        pretrained file isn't needed then. MMEngine's own version would re-initialise the network.

        Raises:
            UserError: For unusable pretrained weights.
        """
        if self._is_init:
            return
        if self.init_cfg:
            initialize(self, self.init_cfg)
        if self.pretrained:
            load_pretrained(self.backbone, self.pretrained, self.arch)
        self._is_init = True

    def use_network(self, network: torch.nn.Module) -> None:
        """Have another module give the logits: an exported file's, for evaluation."""
        self.backbone = network

    def dummy_inputs(self, batch_size: int = 1) -> dict[str, Tensor]:
        """Return what ``forward`` takes: ``inputs`` of zeros, ``(batch_size, C, H, W)``."""
        return {'inputs': torch.zeros(batch_size, *self.input_shape)}

    def forward(
        self, inputs: Tensor, gt_label: Tensor | None = None, mode: str = 'tensor'
    ) -> Tensor | dict[str, Tensor] | list[dict]:
        """Run the network on normalised images.

        Args:
            inputs: ``(N, C, H, W)`` floats.
            gt_label: ``(N,)`` class indices; needed for 'loss', passed through by 'predict'.
            mode: 'tensor' for logits ``(N, num_classes)``, 'loss' for ``dict(loss=scalar)``,
                'predict' for one ``dict(pred_score, pred_label, gt_label)`` per image, tensors on
                the CPU; ``pred_score`` are softmax probabilities in float32.
        """
        logits = self.backbone(inputs)
        if mode == 'tensor':
            return logits
        if mode == 'loss':
            loss = F.cross_entropy(logits, gt_label, label_smoothing=self.label_smoothing)
            return {'loss': loss}
        if mode == 'predict':
            return self._predictions(logits, gt_label)
        raise ValueError(f"mode={mode!r} is unknown; 'tensor', 'loss' and 'predict' are valid")

    @staticmethod
    def _predictions(logits: Tensor, gt_label: Tensor | None) -> list[dict]:
        scores = logits.float().softmax(dim=-1).cpu()  # the one copy to the host per batch
        labels = scores.argmax(dim=-1)
        truth = [None] * len(scores) if gt_label is None else torch.as_tensor(gt_label).cpu()
        return [
            {'pred_score': score, 'pred_label': label, 'gt_label': gt}
            for score, label, gt in zip(scores, labels, truth, strict=True)
        ]


def build_network(arch: str, num_classes: int, kwargs: dict) -> torch.nn.Module:
    """Return a freshly initialised timm network.

    Raises:
        UserError: For an unknown ``arch``, reserved names in ``kwargs``, or what timm refuses.
    """
    if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 1:
        raise UserError(f'model.num_classes={num_classes!r} must be an integer of at least 1')
    if not timm.is_model(arch):
        close = difflib.get_close_matches(str(arch), timm.list_models(), n=3)
        hint = (
            f'did you mean {", ".join(close)}?'
            if close
            else 'timm.list_models() lists the valid ones'
        )
        raise UserError(f'model.arch={arch!r} is not a timm model; {hint}')
    reserved = sorted(set(kwargs) & set(RESERVED))
    if reserved:
        raise UserError(
            f'model.model_kwargs must not hold {", ".join(reserved)}: num_classes and pretrained '
            'are arguments of TimmClassifier itself'
        )
    try:
        return timm.create_model(arch, pretrained=False, num_classes=num_classes, **kwargs)
    except (TypeError, ValueError, AssertionError, RuntimeError, ZeroDivisionError) as err:
        raise UserError(
            f'timm refuses model.model_kwargs={kwargs} for arch {arch!r}: {err}'
        ) from err


def replace_stem(network: torch.nn.Module, arch: str) -> None:
    """Give a ResNet the stem for images of 32 x 32 instead of ImageNet's, in place.

    Raises:
        UserError: It doesn't begin with one convolution and a pooling.
    """
    first = getattr(network, 'conv1', None)
    if not isinstance(first, torch.nn.Conv2d) or not hasattr(network, 'maxpool'):
        raise UserError(
            f'model.cifar_stem=True needs a ResNet such as resnet18; {arch!r} does not begin with one '
            'convolution and a pooling'
        )
    network.conv1 = torch.nn.Conv2d(first.in_channels, first.out_channels, 3, padding=1, bias=False)
    torch.nn.init.kaiming_normal_(network.conv1.weight, mode='fan_out', nonlinearity='relu')
    network.maxpool = torch.nn.Identity()


def input_shape(network: torch.nn.Module, kwargs: dict) -> tuple[int, int, int]:
    """Return (channels, height, width) of the images that a timm network was built for."""
    channels, height, width = network.pretrained_cfg.get('input_size', (3, 224, 224))
    size = getattr(getattr(network, 'patch_embed', None), 'img_size', None)
    size = size or kwargs.get('img_size') or (height, width)
    height, width = (size, size) if isinstance(size, int) else size
    return kwargs.get('in_chans', channels), height, width
