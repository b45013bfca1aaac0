"""A network on each of several processes -> one that is split over them (`fsdp`), and whole tensors where asked for.

Each process keeps a share of every parameter, of its gradient and of the optimiser's state. A part of the network is
put together when it is about to compute, and taken apart again. What a checkpoint holds are whole tensors under the
names that they have without splitting, so any of them goes on with any strategy and any number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.strategies.strategy import Strategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from typing_extensions import override

from oneformer.model.backbones import convnext, dinat, efficientnet_lite, resnet, swin, transformer
from oneformer.train.cluster import Cluster
from oneformer.train.shares import share_of
from oneformer.train.world import World

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

BLOCKS = (
    convnext.Block, dinat.Block, efficientnet_lite.Block, resnet.Bottleneck, swin.Block, transformer.Block,
)  # fmt: skip
"""Put together one at a time. Other parts read weights of their layers from outside, so they come together as a whole,
as do backbones of timm."""


def split(network: nn.Module, criterion: nn.Module, mesh: DeviceMesh) -> None:
    """Split the parameters of the network's parts over the processes of a mesh of one dimension, in place.

    The criterion's one number is kept by every process; its gradient is averaged as soon as it is there.
    """
    for part in network.children():
        for module in part.modules():
            if isinstance(module, BLOCKS):
                fully_shard(module, mesh=mesh, reshard_after_forward=True)
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
    for parameter in criterion.parameters():
        parameter.register_post_accumulate_grad_hook(_average)


def _average(parameter: Tensor) -> None:
    # With gradients added up over batches, what is averaged already stays as it is.
    assert parameter.grad is not None
    dist.all_reduce(parameter.grad.div_(dist.get_world_size()))


def put_together(network: nn.Module) -> None:
    """Let every process hold the whole network, so that they may compute different numbers of batches.

    Nothing is done to one that is not split.
    """
    for part in _parts(network):
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()


def take_apart(network: nn.Module) -> None:
    """Undo `put_together`."""
    for part in _parts(network):
        part.set_reshard_after_forward(True, recurse=False)
        part.reshard()


def is_split(network: nn.Module) -> bool:
    """Whether `split` has been here."""
    return bool(_parts(network))


def _parts(network: nn.Module) -> list[FSDPModule]:
    return [module for module in network.modules() if isinstance(module, FSDPModule)]


class Sharded(ModelParallelStrategy):
    """Lightning's strategy for torch's `fully_shard`, with checkpoints of whole tensors."""

    def __init__(self, world: World, *, process_group_backend: str, timeout: timedelta) -> None:
        super().__init__(
            data_parallel_size=world.size,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )
        self.cluster_environment = Cluster(world)

    @property
    @override
    def lightning_restore_optimizer(self) -> bool:
        return True

    @override
    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    @override
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        module = self.lightning_module
        assert module is not None
        own = module.state_dict()
        state = {
            name: share_of(value, own[name]) if name in own else value
            for name, value in checkpoint["state_dict"].items()
        }
        module.load_state_dict(state, strict=strict)

    @override
    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            shares = {
                place: {
                    name: share_of(value, parameters[place]) if _shaped_as(value, parameters[place]) else value
                    for name, value in values.items()
                }
                for place, values in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": shares})


def _shaped_as(value: object, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape
