"""The C2C method: fuse the prompt's KV-cache (paper, Eq. 3), respond on the fused cache (Eq. 4).

Axes: B batch, T prompt tokens, N response tokens, W hidden width.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from c2c_lightning.data.batch import PromptBatch, TokenBatch
from c2c_lightning.errors import PairMismatchError
from c2c_lightning.kv.layer import LayerStack, SharerKV, append_kv
from c2c_lightning.model.fused_model import FusedModel
from c2c_lightning.model.fusion_modes import MODES, FusionMode
from c2c_lightning.model.prefill_state import PrefillState
from c2c_lightning.model.response_prefix import ResponsePrefix
from c2c_lightning.model.shared_prefix import prefill_prompts


class C2CCore(FusedModel):
    """A frozen receiver that responds on a cache into which a fuser fuses the caches of frozen sharers."""

    @property
    def mode(self) -> FusionMode:
        """Which tokens are fused, and in which forward pass."""
        return MODES[self.fuser.config.fusion_mode]

    def fuse_prompt(self, prompt: PromptBatch, sharer_kv: SharerKV, start: PrefillState | None = None) -> PrefillState:
        """Prefill the receiver step by step and fuse the tokens of each step (paper, Eq. 3).

        Args:
            prompt: the prompts, (B, T).
            sharer_kv: each sharer's cache over its own prompt, None for a sharer that is left out.
            start: the receiver's cache over a prefix of the prompts; default empty.

        Returns:
            The receiver's cache up to the end of the last fusion span.
        """
        state = start or PrefillState.empty(self.receiver, prompt.receiver)
        for step in self.mode.plan(prompt, self.fuser.config):
            state = self.mode.prefill(self, state, sharer_kv, step)
            state = state.fuse(self.fuser, sharer_kv, step)
        return state

    def response_states(
        self,
        prompt: PromptBatch,
        response: TokenBatch,
        active_sharers: Sequence[int] | None = None,
        sharer_kv: SharerKV | None = None,
    ) -> Float[Tensor, "batch one_more_than_response width"]:
        """Teacher forcing on the fused cache (paper, Eq. 4).

        Args:
            prompt: the prompts, (B, T).
            response: the response tokens that are run, (B, N), right padded.
            active_sharers: indices of the sharers that take part; default all.
            sharer_kv: caches to use instead of running the sharers, as from `prefill_sharers`.

        Returns:
            The receiver's last hidden states, (B, 1 + N, W), at the last prompt token and at each response token.
        """
        prefix = self.response_prefix(prompt, response, active_sharers, sharer_kv)
        states = self.receiver.hidden_states(prompt.receiver.append(response), prefix)
        # Prompt tokens after the last span run in the same pass, but nothing is predicted from them.
        return states[:, -1 - response.input_ids.shape[1] :]

    def response_prefix(
        self,
        prompt: PromptBatch,
        response: TokenBatch,
        active_sharers: Sequence[int] | None = None,
        sharer_kv: SharerKV | None = None,
    ) -> ResponsePrefix:
        """The fused cache that a response pass attends to; arguments as in `response_states`."""
        sharer_kv = self.prefill_sharers(prompt, active_sharers) if sharer_kv is None else sharer_kv
        return self.mode.response_prefix(self, prompt, sharer_kv, response)

    def prefill_sharers(
        self, prompt: PromptBatch, active_sharers: Sequence[int] | None = None, prefixes: SharerKV | None = None
    ) -> list[LayerStack | None]:
        """Each sharer's cache over its prompt; sharers never see fused entries.

        Layers and trailing tokens that no receiver token reads are not computed.

        Args:
            prompt: the prompts.
            active_sharers: indices of the sharers to run; default all. The others get None.
            prefixes: caches over the first tokens of these prompts, from which the sharers continue.
        """
        active = self.active_sharers(prompt, active_sharers)
        ends = self.mode.num_sharer_tokens(prompt)
        known = prefixes or [None] * len(self.sharers)
        return [
            self._prefill_sharer(prompt, n, ends[n], known[n]) if n in active else None
            for n in range(len(self.sharers))
        ]

    def active_sharers(self, prompt: PromptBatch, wanted: Sequence[int] | None = None) -> set[int]:
        """The numbers of the sharers that take part, default all.

        Raises:
            PairMismatchError: the prompt is for another number of sharers, or there is no sharer of a number.
        """
        numbers = set(range(len(self.sharers)))
        if len(prompt.sharers) != len(numbers):
            raise PairMismatchError(
                f"The prompt has tokens for {len(prompt.sharers)} sharers, but the model has {len(numbers)}."
            )
        if wanted is None:
            return numbers
        if not set(wanted) <= numbers:
            raise PairMismatchError(
                f"active_sharers is {list(wanted)}, but the sharers are 0 to {len(self.sharers) - 1}."
            )
        return set(wanted)

    def continue_sharers(self, text: PromptBatch, sharer_kv: SharerKV) -> list[LayerStack | None]:
        """Sharer caches continued over a longer text, as far as it is read."""
        return [
            None if kv is None else self._prefill_sharer(text, n, text.plan.num_read_tokens[n], kv)
            for n, kv in enumerate(sharer_kv)
        ]

    @torch.no_grad()
    def _prefill_sharer(self, prompt: PromptBatch, number: int, end: int, prefix: LayerStack | None) -> LayerStack:
        # Deeper layers than the deepest that is read are not computed.
        num_layers = self.fuser.sharers[number].num_sharer_layers
        sharer, tokens = self.sharers[number], prompt.sharers[number]
        if prefix is None:
            return prefill_prompts(sharer, tokens, end, num_layers)
        return append_kv(prefix, sharer.prefill_tokens(tokens, end, prefix, num_layers))
