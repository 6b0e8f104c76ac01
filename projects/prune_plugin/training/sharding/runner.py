"""A Runner for models whose parameters are sharded among ranks."""

import time
from typing import Any

import mmengine
import torch
from mmengine import dist
from mmengine.fileio import join_path
from mmengine.optim import OptimWrapper
from mmengine.registry import MODEL_WRAPPERS, RUNNERS
from mmengine.runner import Runner, save_checkpoint
from torch import nn

from ...common.errors import UserError
from ...common.model_interface import init_weights_of, metainfo_of
from .fully_shard import gathered, shard_loaded_optimizer_state


@RUNNERS.register_module()
class ShardedRunner(Runner):
    """Trains under :class:`FullyShard`; its checkpoints hold whole tensors, like those of any Runner.

    MMEngine's Runner saves on rank 0 only. Here all ranks take part: each calls the hooks'
    ``before_save_checkpoint``, then sharded tensors are gathered one after the other and rank 0 writes the
    file. Checkpoints of any training, sharded or not, can be loaded.

    Without a process group (on one process) it is a plain Runner.
    """

    #: Whether the model comes with weights, which initialising would overwrite.
    model_has_weights = False

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Initialise and shard the model, which doesn't have to fit on one device.

        Raises:
            UserError: ``model_wrapper_cfg`` isn't a FullyShard.
        """
        if not self.distributed:
            return super().wrap_model(None, model)
        if not model_wrapper_cfg or model_wrapper_cfg.get('type') != 'FullyShard':
            raise UserError(
                "runner_type='ShardedRunner' needs model_wrapper_cfg=dict(type='FullyShard', "
                f'blocks=[...]), not {model_wrapper_cfg!r}'
            )
        if not self.model_has_weights:
            init_weights_of(model)
        for tensor in (*model.parameters(), *model.buffers()):
            send_from_rank_0(tensor)
        default_args = dict(module=model, saved_whole=True)
        return MODEL_WRAPPERS.build(model_wrapper_cfg, default_args=default_args)

    def _init_model_weights(self) -> None:
        """Nothing under sharding: :meth:`wrap_model` has done it."""
        if not self.distributed:
            super()._init_model_weights()

    def build_optim_wrapper(self, optim_wrapper: Any) -> OptimWrapper:
        """As MMEngine's; the optimizer shards the state that it loads."""
        built = super().build_optim_wrapper(optim_wrapper)
        if self.distributed and built is not optim_wrapper:
            shard_loaded_optimizer_state(built.optimizer)
        return built

    def load_checkpoint(self, filename: str, map_location: Any = 'cpu', **kwargs) -> dict:
        """As MMEngine's, but to CPU memory under sharding, as whole tensors may not fit on a device."""
        return super().load_checkpoint(
            filename, 'cpu' if self.distributed else map_location, **kwargs
        )

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        """As MMEngine's; all ranks must call it."""
        meta = dict(meta or {})
        meta.setdefault('epoch', self.epoch + (1 if by_epoch else 0))
        meta.setdefault('iter', self.iter + (0 if by_epoch else 1))
        meta.update(
            cfg=self.cfg.pretty_text,
            seed=self.seed,
            experiment_name=self.experiment_name,
            time=time.strftime('%Y%m%d_%H%M%S'),
            mmengine_version=mmengine.__version__,
        )
        metainfo = metainfo_of(self.train_dataloader.dataset)
        if metainfo is not None:
            meta['dataset_meta'] = metainfo
        model = self.model.module if self.distributed else self.model
        checkpoint = dict(
            meta=meta, state_dict=model.state_dict(), message_hub=self.message_hub.state_dict()
        )
        if save_optimizer:
            checkpoint['optimizer'] = self.optim_wrapper.state_dict()
        if save_param_scheduler and self.param_schedulers is not None:
            checkpoint['param_schedulers'] = [s.state_dict() for s in self.param_schedulers]
        self.call_hook('before_save_checkpoint', checkpoint=checkpoint)
        writes = dist.is_main_process()
        checkpoint = {key: gathered(value, keep=writes) for key, value in checkpoint.items()}
        if writes:
            path = join_path(out_dir, filename, backend_args=backend_args)
            save_checkpoint(checkpoint, path, backend_args=backend_args)


@torch.no_grad()
def send_from_rank_0(tensor: torch.Tensor) -> None:
    """Overwrite a tensor with rank 0's, through the GPU if there is one (for nccl)."""
    buffer = tensor.detach().to('cuda') if torch.cuda.is_available() else tensor.detach()
    dist.broadcast(buffer)
    if buffer.data_ptr() != tensor.data_ptr():
        tensor.copy_(buffer)
