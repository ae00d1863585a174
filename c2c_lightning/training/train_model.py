"""The fused model as it is trained: the loss of a batch, whatever runs around it."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule

from c2c_lightning.data.batch import PromptBatch, TrainingBatch
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.kv.layer import LayerKV, SharerKV
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.prefill_state import PrefillState
from c2c_lightning.training.activation_checkpointing import activation_checkpointing_context


class TrainModel(C2CModel):
    """A fused model whose `batch_loss` trains alone, in many processes, and sharded.

    Attributes:
        activation_checkpointing: whether the receiver's response pass keeps only its layers' inputs and is computed
            again, layer by layer, on the way back.
    """

    activation_checkpointing = False

    def batch_loss(self, batch: TrainingBatch, active_sharers: tuple[int, ...] | None = None) -> Tensor:
        """Summed cross-entropy of the supervised response tokens, and what keeps processes in step.

        Where the fuser is sharded this is its forward pass: gathered at the beginning, gradients reduced once, however
        many spans a process has in its batch.

        Args:
            batch: prompts and responses.
            active_sharers: numbers of the sharers that take part, default all.
        """
        if not torch.is_grad_enabled():
            return self.response_loss(batch, active_sharers)
        replay: AbstractContextManager[None] = nullcontext()
        if self.activation_checkpointing:
            replay = activation_checkpointing_context(self.receiver.model, self.receiver.blocks)
        with replay:
            return self.response_loss(batch, active_sharers) + self._anchor(batch.prompt)

    def _anchor(self, prompt: PromptBatch) -> Tensor:
        """Zero, with a gradient to what may have no part in the loss; DDP waits for the gradient of every parameter.

        Those are all weights of a sharer that no row reads.
        """
        parameters: list[Tensor] = []
        for number, sharer in enumerate(self.fuser.sharers):
            if not any(len(fusion.fused_tokens[number]) for fusion in prompt.fusion_plan):
                parameters.extend(sharer.parameters())
        zero = torch.zeros((), device=next(self.fuser.parameters()).device)
        return 0.0 * sum((parameter.flatten()[0] for parameter in parameters), zero)

    def fuse_prompt(self, prompt: PromptBatch, sharer_kv: SharerKV, start: PrefillState | None = None) -> PrefillState:
        """As `C2CCore.fuse_prompt`; with a sharded receiver also where nothing is fused.

        All processes gather its layers together, forward and backward, so each must run as many passes.
        """
        state = super().fuse_prompt(prompt, sharer_kv, start)
        if not self.receiver.is_sharded:
            return state
        if not prompt.fusion_plan:
            state = state.prefill(self.receiver, until=prompt.num_receiver_tokens - 1)
        if not torch.is_grad_enabled():
            return state
        zero = 0.0 * next(p for p in self.fuser.parameters() if p.requires_grad).flatten()[0]
        return replace(state, fused_kv=[LayerKV(layer.keys + zero, layer.values + zero) for layer in state.fused_kv])

    def whole_fuser(self) -> Fuser | None:
        """The fuser, gathered on the CPU where it is sharded; all processes call this, and only the first one gets it.

        In processes that hold all of it: the fuser itself.
        """
        if not isinstance(self, FSDPModule):
            return self.fuser
        state = get_model_state_dict(self, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        if not state:
            return None
        geometries = [sharer.geometry for sharer in self.sharers]
        whole = Fuser(self.receiver.geometry, geometries, self.fuser.config)
        whole.load_state_dict({name.removeprefix("fuser."): value for name, value in state.items()})
        return whole.eval()
