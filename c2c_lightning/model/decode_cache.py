"""Cache for fusion mode `decode`: runs the unfused models along with the response and fuses its tokens."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor
from transformers.cache_utils import Cache

from c2c_lightning.alignment.fingerprint import same_tokens
from c2c_lightning.alignment.fusion_plan import TokenPositions
from c2c_lightning.alignment.retokenization import retokenize
from c2c_lightning.data.batch import PromptBatch, SharerTokens, TokenBatch
from c2c_lightning.errors import GenerationError
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.kv.cache import edited_cache_layers
from c2c_lightning.kv.layer import LayerKV, LayerStack, append_kv, select_rows
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.fused_prompt import FusedPrompt


def sharer_ids(receiver: FrozenLM, sharer: FrozenLM, ids: Int[Tensor, "batch n"]) -> Int[Tensor, "batch n"]:
    """The receiver's response tokens in the sharer's vocabulary, one for one (paper A.1.2, `longest`)."""
    if sharer.tokenizer is receiver.tokenizer or same_tokens(receiver.tokenizer, sharer.tokenizer):
        return ids
    flat = retokenize(receiver.tokenizer, sharer.tokenizer, ids.flatten().tolist(), "longest")
    return torch.tensor(flat, device=ids.device).view_as(ids)


def with_response(
    receiver: FrozenLM,
    sharers: Sequence[FrozenLM],
    prompt: PromptBatch,
    response: TokenBatch,
) -> PromptBatch:
    """Prompt and response as one prompt in which the last prompt token and all response tokens are fused.

    The last token of a prompt is never part of a span, so one column that is never run is appended. Made on the host,
    see `TokenBatch`: the fusion plan of the text depends on its values.
    """
    device, prompt, response = prompt.receiver.input_ids.device, prompt.on_host, response.on_host
    # The extra column counts as a real token, so that its position continues the count.
    padded, columns = F.pad(response.mask, (0, 1), value=1), response.input_ids.shape[1] + 1
    extended = []
    for lm, tokens in zip(sharers, prompt.sharers, strict=True):
        width = tokens.input_ids.shape[1]
        own = torch.arange(width, width + columns).expand_as(padded)
        last = torch.full_like(padded[:, :1], width - 1)
        source = torch.cat([tokens.index[:, :-1], last, own.masked_fill(padded == 0, -1)], 1)
        text = tokens.append(TokenBatch(F.pad(sharer_ids(receiver, lm, response.input_ids), (0, 1)), padded))
        extended.append(SharerTokens(text.input_ids, text.mask, text.positions, source))
    own_text = prompt.receiver.append(TokenBatch(F.pad(response.input_ids, (0, 1)), padded))
    return PromptBatch(own_text, tuple(extended)).to(device)


class DecodeCache(Cache):
    """A cache of fused entries.

    Before each pass of the receiver, `extend` needs the tokens of the pass; `generation.generate` calls it by a hook.

    Attributes:
        unfused_kv: the receiver's own entries.
        sharer_kv: the sharers' entries.
    """

    def __init__(self, receiver: FrozenLM, sharers: Sequence[FrozenLM], fuser: Fuser, fused: FusedPrompt) -> None:
        """Begin with all prompt tokens but the last; sharer caches cover their whole prompts."""
        self.receiver, self.sharers, self.fuser = receiver, tuple(sharers), fuser.split()
        self.unfused_kv, self.sharer_kv = fused.unfused_kv, list(fused.sharer_kv)
        # None where nothing is padded, which stays so: response tokens are attended to.
        self.masks = [tokens.padding_mask() for tokens in fused.prompt.sharers]
        self.is_padded = fused.prompt.receiver.padding_mask() is not None
        self.positions = [tokens.positions[:, -1:] for tokens in fused.prompt.sharers]
        self.is_first = True
        self.pending: LayerStack | None = None
        # The states of the fused pass begin as those of the clean one, which fusion leaves as they are.
        super().__init__(layers=list(edited_cache_layers(fused.fused_kv, self._take, fused.states)))

    @torch.no_grad()
    def extend(
        self,
        input_ids: Int[Tensor, "batch new"],
        attention_mask: Int[Tensor, "batch all"] | None,
        position_ids: Int[Tensor, "batch new"],
    ) -> None:
        """Run the unfused models over the tokens of the next pass and fuse their entries.

        Args:
            input_ids: (batch, new), the receiver's tokens.
            attention_mask: (batch, all), None where nothing is padded.
            position_ids: (batch, new).
        """
        mask = attention_mask if self.is_padded else None
        new = self.receiver.prefill(input_ids, mask, position_ids, self.unfused_kv)
        self.unfused_kv = append_kv(self.unfused_kv, new)
        last = list(self.positions)
        read = [None if kv is None else self._sharer_entries(n, kv, input_ids) for n, kv in enumerate(self.sharer_kv)]
        # The first new token is fused with the last prompt token of each sharer, later ones with its response tokens.
        first, steps = 0 if self.is_first else 1, torch.arange(input_ids.shape[1], device=input_ids.device)
        positions = TokenPositions(position_ids, tuple(position + first + steps for position in last))
        self.is_first = False
        # Attention reads these entries in the pass that follows, see `_take`.
        self.pending = [self.fuser.fuse_new(layer, entries, read, positions) for layer, entries in enumerate(new)]

    def _sharer_entries(self, number: int, kv: LayerStack, ids: Tensor) -> LayerStack:
        """The sharer entries that the new tokens read: at first its last prompt token, then the response's."""
        if not self.is_first:
            return self._continue_sharer(number, kv, ids)
        last = [layer.tokens(-1) for layer in kv]
        return last if ids.shape[1] == 1 else append_kv(last, self._continue_sharer(number, kv, ids[:, 1:]))

    def _continue_sharer(self, number: int, kv: LayerStack, ids: Tensor) -> LayerStack:
        """A sharer's entries of response tokens, which its cache keeps."""
        sharer, ones, mask = self.sharers[number], torch.ones_like(ids), self.masks[number]
        self.masks[number] = None if mask is None else torch.cat([mask, ones.to(mask)], 1)
        positions = self.positions[number] + ones.cumsum(1)
        self.positions[number] = positions[:, -1:]
        new = sharer.prefill(sharer_ids(self.receiver, sharer, ids), self.masks[number], positions, kv, len(kv))
        self.sharer_kv[number] = append_kv(kv, new)
        return new

    def _take(self, layer: int, new: LayerKV) -> LayerKV:
        if self.pending is None:
            raise GenerationError("This cache fuses response tokens: use it through `C2CModel.generate`.")
        return self.pending[layer]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row, for beams and several answers."""
        super().batch_repeat_interleave(repeats)
        rows = torch.arange(len(self.unfused_kv[0].keys), device=self.unfused_kv[0].keys.device)
        self._select_rows(rows.repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int) -> None:
        """Remove response tokens, as assisted decoding does; `tokens_to_remove` is negative."""
        super().crop(tokens_to_remove)
        if tokens_to_remove == 0:
            return
        self.unfused_kv = [layer.tokens(0, tokens_to_remove) for layer in self.unfused_kv]
        self.sharer_kv = [
            None if kv is None else [layer.tokens(0, tokens_to_remove) for layer in kv] for kv in self.sharer_kv
        ]
        self.masks = [None if mask is None else mask[:, :tokens_to_remove] for mask in self.masks]
        self.positions = [positions + tokens_to_remove for positions in self.positions]

    def reorder_cache(self, beam_idx: Int[Tensor, " batch"]) -> None:
        """Follow the beams, with the unfused caches too."""
        super().reorder_cache(beam_idx.long())  # type: ignore[arg-type]
        self._select_rows(beam_idx)

    def _select_rows(self, rows: Tensor) -> None:
        self.unfused_kv = select_rows(self.unfused_kv, rows)
        self.sharer_kv = [None if kv is None else select_rows(kv, rows) for kv in self.sharer_kv]
        self.masks = [None if mask is None else mask[rows.to(mask.device)] for mask in self.masks]
        self.positions = [positions[rows.to(positions.device)] for positions in self.positions]
