"""The fused model in training: the loss of a batch in one or many processes, sharded or not."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule

from c2c_lightning.data.batch import PromptBatch, TokenBatch, TrainingBatch
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.fuser.parameter_roles import ParameterRoles
from c2c_lightning.kv.layer import LayerKV, SharerKV
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.prefill_state import PrefillState
from c2c_lightning.model.pretrained import save_pretrained
from c2c_lightning.model.response_prefix import ResponsePrefix
from c2c_lightning.training.activation_checkpointing import activation_checkpointing_context
from c2c_lightning.training.frozen_cache.frozen_prefills import FrozenPrefills


class TrainModel(C2CModel):
    """A fused model with a loss that keeps processes in step and can be sharded.

    Attributes:
        activation_checkpointing: recompute the receiver's response pass, layer by layer, in the backward pass.
        is_untrained: the fuser was neither trained nor loaded from a checkpoint.
        has_bare_receiver: whether `batch_loss` without sharers is the loss of the untrained receiver.
        frozen_prefills: kept caches of the frozen models, from which losses are computed; None to compute them.
    """

    activation_checkpointing = False
    is_untrained = True
    has_bare_receiver = True
    frozen_prefills: FrozenPrefills | None = None

    def batch_loss(self, batch: TrainingBatch, active_sharers: tuple[int, ...] | None = None) -> Tensor:
        """Summed cross-entropy of the supervised response tokens, ().

        For a sharded fuser this is the forward pass: its weights are gathered at the beginning and gradients reduced
        once, for any number of fusion spans in the batch.

        Args:
            batch: prompts and responses.
            active_sharers: indices of the active sharers, default all.
        """
        if not torch.is_grad_enabled():
            return self.response_loss(batch, active_sharers)
        with self._recomputation():
            return self.response_loss(batch, active_sharers) + self._unused_parameters(batch.prompt)

    def _recomputation(self) -> AbstractContextManager[None]:
        if self.activation_checkpointing and torch.is_grad_enabled():
            return activation_checkpointing_context(self.receiver.model, self.receiver.blocks)
        return nullcontext()

    def response_prefix(
        self,
        prompt: PromptBatch,
        response: TokenBatch,
        active_sharers: Sequence[int] | None = None,
        sharer_kv: SharerKV | None = None,
    ) -> ResponsePrefix:
        """As `C2CCore.response_prefix`, from kept caches if there are any."""
        if self.frozen_prefills is None or sharer_kv is not None:
            return super().response_prefix(prompt, response, active_sharers, sharer_kv)
        return self.frozen_prefills.response_prefix(self, prompt, response, active_sharers)

    def _unused_parameters(self, prompt: PromptBatch) -> Tensor:
        """Zero, with a gradient for the sharers that no row uses: DDP waits for the gradient of every parameter."""
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

    def prompt_texts(self, batch: TrainingBatch) -> list[str]:
        """The prompts as the receiver reads them."""
        return batch.prompt_texts(self.receiver.tokenizer)

    def parameter_roles(self) -> ParameterRoles:
        """The trained parameters by their role for the optimizer."""
        return self.fuser.parameter_roles()

    def write(self, directory: Path, is_first_process: bool) -> None:
        """Write the fuser directory from the first process; all processes call this together."""
        fuser = self.whole_fuser()
        if is_first_process and fuser is not None:
            save_pretrained(directory, fuser, self.receiver, self.sharers, self.training_record, overwrite=True)

    def whole_fuser(self) -> Fuser | None:
        """The fuser; a sharded one is gathered on the CPU of the first process, and None elsewhere.

        All processes call this together.
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
