"""A frozen receiver, frozen sharers and a fuser as one model (paper, Eq. 3 and 4)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from c2c_lightning.data.batch import PromptBatch, TrainingBatch
from c2c_lightning.errors import PairMismatchError
from c2c_lightning.export.description import TrainingRecord
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.kv.layer import LayerStack, SharerKV
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.fused_prompt import FusedPrompt
from c2c_lightning.model.fusion_modes import MODES, FusionMode
from c2c_lightning.model.generation import generate
from c2c_lightning.model.prefill import read_prompt
from c2c_lightning.model.prefix_match import PrefixMatch, joined
from c2c_lightning.model.pretrained import DType, ModelLike, load_pretrained, save_pretrained
from c2c_lightning.model.response import Response
from c2c_lightning.model.side_stream import SideStreamPrefill
from c2c_lightning.model.text_interface import TextInterface
from c2c_lightning.ops.chunked_cross_entropy import summed_loss
from c2c_lightning.ops.ragged_attention import is_left_padded


@dataclass(frozen=True)
class C2COutput:
    """What a teacher-forced pass gives.

    Attributes:
        loss: mean cross-entropy over the supervised response tokens.
        make_logits: computes the logits; a loss needs none where nothing is supervised.
    """

    loss: Tensor
    make_logits: Callable[[], Tensor] = field(repr=False)

    @cached_property
    def logits(self) -> Tensor:
        """(batch, 1 + response, vocab), at the last prompt token and at each response token; made when asked for."""
        with torch.set_grad_enabled(self.loss.requires_grad):
            return self.make_logits()


class C2CModel(TextInterface, nn.Module):
    """The receiver, answering on a cache that its sharers' caches are fused into.

    Only `fuser` is a submodule: it alone trains, and it alone is in the state dict.

    Attributes:
        receiver: the model that answers.
        sharers: the models that share their caches.
        fuser: the trained part.
        training_record: how the fuser was trained, for its card, where that is known.
    """

    def __init__(self, receiver: FrozenLM, sharers: Sequence[FrozenLM], fuser: Fuser | FuserConfig) -> None:
        """Put a fuser, or a fresh one by its configuration, between loaded models."""
        super().__init__()
        self.receiver, self.sharers = receiver, tuple(sharers)
        if isinstance(fuser, FuserConfig):
            fuser = Fuser(receiver.geometry, [sharer.geometry for sharer in sharers], fuser)
        self.fuser: Fuser = fuser
        self.training_record: TrainingRecord | None = None

    @property
    def mode(self) -> FusionMode:
        """What is fused, and in which pass."""
        return MODES[self.fuser.config.fusion_mode]

    def prefill_sharers(
        self, prompt: PromptBatch, active_sharers: Sequence[int] | None = None
    ) -> list[LayerStack | None]:
        """Each sharer's cache over its prompt, as far as it is read; a sharer never sees fused entries.

        Args:
            prompt: the prompts.
            active_sharers: numbers of the sharers to run, default all.
        """
        started = self.start_sharers(prompt, active_sharers)
        return [None if prefill is None else prefill.result() for prefill in started]

    def start_sharers(
        self, prompt: PromptBatch, active_sharers: Sequence[int] | None = None, known: PrefixMatch | None = None
    ) -> list[SideStreamPrefill | None]:
        """`prefill_sharers`, not waited for: the receiver's prefill may run beside them.

        Args:
            prompt: the prompts.
            active_sharers: numbers of the sharers to run, default all.
            known: what of the prompts was read before.
        """
        if len(prompt.sharers) != len(self.sharers):
            raise PairMismatchError(f"the prompt has tokens for {len(prompt.sharers)} sharers, of {len(self.sharers)}.")
        active = range(len(self.sharers)) if active_sharers is None else active_sharers
        if not set(active) <= set(range(len(self.sharers))):
            raise PairMismatchError(
                f"active_sharers is {list(active)}, but the sharers are 0 to {len(self.sharers) - 1}."
            )
        started: list[SideStreamPrefill | None] = []
        for n, sharer in enumerate(self.sharers):
            prefix = None if known is None else known.sharer_kv[n]
            work = partial(self._prefill_sharer, prompt, n, prefix)
            started.append(SideStreamPrefill(sharer.device, work) if n in active else None)
        return started

    @torch.no_grad()
    def _prefill_sharer(self, prompt: PromptBatch, number: int, known: LayerStack | None) -> LayerStack:
        tokens, sharer = prompt.sharers[number], self.sharers[number]
        begin = known[0].num_tokens if known else 0
        end = tokens.input_ids.shape[1] if self.mode.reads_whole_prompt else prompt.num_read_tokens[number]
        sharer.check_length(end)
        num_layers = self.fuser.sharers[number].num_sharer_layers
        ids, mask, positions = tokens.input_ids[:, begin:end], tokens.mask[:, :end], tokens.positions[:, begin:end]
        new = sharer.prefill(ids, mask, positions, known if begin else None, num_layers)
        return joined(known, new) if known and begin else new

    def prefill_receiver(self, prompt: PromptBatch, prefix: LayerStack, end: int) -> LayerStack:
        """The receiver's cache over its first `end` prompt tokens, going on from `prefix`.

        The graph is kept only where it is needed: after fused entries that are being trained.
        """
        begin, tokens = prefix[0].num_tokens, prompt.receiver
        with torch.set_grad_enabled(torch.is_grad_enabled() and prefix[0].keys.requires_grad):
            ids, mask, positions = tokens.input_ids[:, begin:end], tokens.mask[:, :end], tokens.positions[:, begin:end]
            new = self.receiver.prefill(ids, mask, positions, prefix if begin else None)
        return joined(prefix, new)

    def fuse_spans(self, prompt: PromptBatch, sharer_kv: SharerKV) -> LayerStack:
        """The receiver's fused cache up to the end of the last fusion span (Eq. 3)."""
        receiver_kv = self.receiver.empty_kv(len(prompt))
        for fusion in self.mode.rounds(prompt, self.fuser.config):
            receiver_kv = self.prefill_receiver(prompt, receiver_kv, fusion.end)
            receiver_kv = self.fuser(receiver_kv, sharer_kv, fusion)
        return receiver_kv

    @torch.no_grad()
    def read(
        self,
        prompt: PromptBatch,
        active_sharers: Sequence[int] | None = None,
        sharer_kv: SharerKV | None = None,
        prefix: FusedPrompt | None = None,
    ) -> FusedPrompt:
        """Read prompts, without gradients, to be kept as the `prefix` of others: a long document, a growing chat.

        Args:
            prompt: the prompts, left padded.
            active_sharers: numbers of the sharers that take part, default all.
            sharer_kv: caches to use instead of running the sharers, as from `prefill_sharers`.
            prefix: one prompt that was read before. Only what a prompt does not share with it is run; the result is
                that of reading the whole, whatever they share.
        """
        return read_prompt(self, self._placed(prompt), active_sharers, sharer_kv, prefix)

    def fuse(
        self,
        prompt: PromptBatch,
        active_sharers: Sequence[int] | None = None,
        sharer_kv: SharerKV | None = None,
        prefix: FusedPrompt | None = None,
    ) -> Cache:
        """The fused cache over all prompt tokens but the last, for `generate` to go on from; arguments as in `read`."""
        read = read_prompt(self, self._placed(prompt), active_sharers, sharer_kv, prefix)
        return self.mode.generation_cache(self, read)

    def forward(
        self,
        prompt: PromptBatch,
        response_ids: Tensor,
        response_mask: Tensor | None = None,
        active_sharers: Sequence[int] | None = None,
    ) -> C2COutput:
        """Teacher-forced pass over prompts and responses (Eq. 4).

        Args:
            prompt: the prompts, left padded.
            response_ids: (batch, response), right padded.
            response_mask: (batch, response), 1 for a real and supervised token; default all.
            active_sharers: numbers of the sharers that take part, default all.
        """
        response_ids = response_ids.to(self.receiver.device)
        mask = torch.ones_like(response_ids) if response_mask is None else response_mask.to(response_ids)
        batch = TrainingBatch(self._placed(prompt), response_ids, mask.bool())
        sharer_kv = self.prefill_sharers(batch.prompt, active_sharers)
        response = self._response(batch.prompt, sharer_kv, response_ids, batch.response_mask, self._is_packed(batch))
        columns, head = 1 + response_ids.shape[1], self.receiver.head
        if head is None:
            logits = response.logits(self.receiver)[:, -columns:]
            loss = summed_loss(logits[:, :-1][batch.response_mask], response_ids[batch.response_mask])
            return C2COutput(loss / len(batch.supervised), lambda: logits)
        hidden = response.hidden(self.receiver)[:, -columns:]
        supervised = hidden[:, :-1].flatten(0, 1).index_select(0, batch.supervised)
        loss = head.summed_loss(supervised, response_ids.flatten().index_select(0, batch.supervised))
        return C2COutput(loss / len(batch.supervised), lambda: head.logits(hidden))

    def response_loss(self, batch: TrainingBatch, active_sharers: Sequence[int] | None = None) -> Tensor:
        """Summed cross-entropy of the supervised response tokens; nothing is computed that it does not need."""
        batch = batch.to(self.receiver.device)
        sharer_kv = self.prefill_sharers(batch.prompt, active_sharers)
        # Nothing is predicted at a row's last token, so it is not run; where all run together, at no row's.
        is_packed = self._is_packed(batch)
        ids, mask = batch.response_ids[:, :-1], batch.response_mask[:, 1:] if is_packed else batch.response_mask[:, :-1]
        return self._response(batch.prompt, sharer_kv, ids, mask, is_packed).summed_loss(self.receiver, batch)

    def _is_packed(self, batch: TrainingBatch) -> bool:
        """Whether responses are run as one row: it pays, and something is to be predicted at real tokens only."""
        if not self.receiver.gains_by_packing(batch.response_mask):
            return False
        return is_left_padded(batch.prompt.receiver.mask) and is_left_padded(batch.response_mask.flip(1))

    def _response(
        self, prompt: PromptBatch, sharer_kv: SharerKV, ids: Tensor, mask: Tensor, is_packed: bool
    ) -> Response:
        """The responses behind their fused prompts."""
        self.receiver.check_length(prompt.num_receiver_tokens + ids.shape[1])
        prefix = self.mode.response_prefix(self, prompt, sharer_kv, ids, mask)
        return Response(prompt.receiver, prefix, ids, mask, is_packed)

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | Path,
        receiver: ModelLike | None = None,
        sharers: ModelLike | Sequence[ModelLike] | None = None,
        revision: str | None = None,
        dtype: DType | torch.dtype | None = None,
        device: str | torch.device | None = None,
    ) -> Self:
        """A fuser directory, or a fuser on the hub, with its language models; in evaluation mode.

        Args:
            path_or_hub_id: the fuser.
            receiver: the receiver, by name or loaded; default the one that the fuser names.
            sharers: likewise, one for each sharer.
            revision: hub revision of the fuser.
            dtype: type of the language models' weights, default as in their checkpoints; the fuser stays as saved.
            device: where everything is put.
        """
        parts = load_pretrained(path_or_hub_id, receiver, sharers, revision, dtype, device)
        model = cls(parts.receiver, parts.sharers, parts.fuser)
        model.training_record = parts.training
        return model.eval()

    def save_pretrained(self, directory: str | Path, overwrite: bool = False) -> Path:
        """Write the fuser directory: configuration, weights and card; language models are only named.

        Args:
            directory: where to.
            overwrite: whether the fuser of another run may be replaced.

        Raises:
            FuserFormatError: the directory holds another fuser, or weights are not finite.
        """
        return save_pretrained(
            directory, self.fuser, self.receiver, self.sharers, self.training_record, overwrite=overwrite
        )

    @torch.no_grad()
    def generate(
        self,
        prompt: PromptBatch,
        active_sharers: Sequence[int] | None = None,
        sharer_kv: SharerKV | None = None,
        prefix: FusedPrompt | None = None,
        **generate_kwargs: Any,
    ) -> Any:
        """Transformers' own `generate` on the fused cache; the arguments of `read`, and all that `generate` takes.

        Returns:
            (batch, prompt + new) ids, or what `return_dict_in_generate` asks for.
        """
        prompt = self._placed(prompt)
        cache = self.fuse(prompt, active_sharers, sharer_kv, prefix)
        return generate(self.receiver, prompt, cache, **generate_kwargs)

    def _placed(self, prompt: PromptBatch) -> PromptBatch:
        """The prompts on the receiver's device."""
        return prompt.to(self.receiver.device)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Moves the frozen models too when the fuser is moved; never changes their type."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for parameter in islice(self.fuser.parameters(), 1):  # there is none where no layer is fused
            for model in (self.receiver, *self.sharers):
                model.to(parameter.device)
        return self
