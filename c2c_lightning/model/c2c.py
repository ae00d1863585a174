"""`C2CModel`: a fused model that encodes, generates, chats, and is loaded and saved."""

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch
from huggingface_hub import CommitInfo
from jaxtyping import Bool, Int
from torch import Tensor
from transformers.cache_utils import Cache

from c2c_lightning.channel.sharer_client import SharerMissingError
from c2c_lightning.data.batch import PromptBatch, TokenBatch, TrainingBatch
from c2c_lightning.data.collate import collate_prompts
from c2c_lightning.data.encode import Encoder, Kwargs
from c2c_lightning.data.messages import Conversation
from c2c_lightning.errors import PromptError
from c2c_lightning.export.description import TrainingRecord
from c2c_lightning.export.hub import push_directory
from c2c_lightning.export.results_card import write_results_card
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.kv.layer import SharerKV
from c2c_lightning.model.arriving_stack import leave_out_missing, wait_for
from c2c_lightning.model.c2c_output import C2COutput
from c2c_lightning.model.core import C2CCore
from c2c_lightning.model.ended_rows import generate_rows
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.fused_prompt import FusedPrompt
from c2c_lightning.model.generation import generate, new_tokens
from c2c_lightning.model.locks import exclusive
from c2c_lightning.model.prefix_match import match_prefix
from c2c_lightning.model.pretrained import DType, ModelLike, load_pretrained, save_pretrained
from c2c_lightning.model.tf32 import prefer_tf32


class C2CModel(C2CCore):
    """The receiver, responding on a cache into which its sharers' caches are fused.

    Several threads may use one model: their forward passes take turns.

    Attributes:
        training_record: how the fuser was trained, for its model card, if known.

    Example:
        >>> model = C2CModel.from_pretrained("runs/quickstart/fuser")  # doctest: +SKIP
        >>> model.chat([[{"role": "user", "content": "What is the capital of Nepi?"}]])  # doctest: +SKIP
    """

    _encoder: tuple[str, Encoder] | None = None

    def __init__(self, receiver: FrozenLM, sharers: Sequence[FrozenLM], fuser: Fuser | FuserConfig) -> None:
        """Join loaded models by a fuser, or by a fresh one with the given configuration."""
        if isinstance(fuser, FuserConfig):
            fuser = Fuser(receiver.geometry, [sharer.geometry for sharer in sharers], fuser)
        super().__init__(receiver, sharers, fuser)
        prefer_tf32(receiver.device)
        self.training_record: TrainingRecord | None = None

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
            device: where everything is put; CUDA devices compute float32 products in TF32 then, see `prefer_tf32`.
        """
        parts = load_pretrained(path_or_hub_id, receiver, sharers, revision, dtype, device)
        model = cls(parts.receiver, parts.sharers, parts.fuser)
        model.training_record = parts.training
        return model.eval()

    def save_pretrained(self, directory: str | Path, overwrite: bool = False) -> Path:
        """Write the fuser directory: configuration, weights and card; language models are only named.

        Args:
            directory: where to.
            overwrite: whether a fuser with other weights may be replaced.

        Raises:
            FuserFormatError: the directory holds another fuser, or weights are not finite.
        """
        return save_pretrained(
            directory, self.fuser, self.receiver, self.sharers, self.training_record, overwrite=overwrite
        )

    def push_to_hub(
        self,
        repo_id: str,
        report: str | Path | None = None,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload a fuser of c2c_lightning",
    ) -> CommitInfo:
        """Upload the fuser directory to the Hugging Face hub; `from_pretrained(repo_id)` loads it from there.

        Args:
            repo_id: name on the hub, OWNER/NAME; the repository is created if needed.
            report: `report.json` of `lightning test` for this fuser, whose tables and verdicts the card shows.
            private: whether a new repository is private; None for the owner's default.
            revision: branch, created if needed; default the main branch.
            commit_message: title of the commit.

        Returns:
            The commit, whose `oid` is a `revision` for `from_pretrained`.

        Raises:
            HubError: no login (HF_TOKEN or `hf auth login`), no permission, no connection.
            ReportError: the report is of another fuser.
        """
        with TemporaryDirectory() as folder:
            directory = self.save_pretrained(Path(folder) / "fuser")
            if report is not None:
                write_results_card(directory, report)
            return push_directory(directory, repo_id, private, revision, commit_message)

    @property
    def encoder(self) -> Encoder:
        """Encodes conversations for these models, with the configured token alignment."""
        alignment = self.fuser.config.token_alignment
        # Rebuilt when the alignment of the configuration is replaced after loading.
        if self._encoder is None or self._encoder[0] != alignment:
            sharers = [sharer.tokenizer_spec for sharer in self.sharers]
            self._encoder = alignment, Encoder(self.receiver.tokenizer_spec, sharers, alignment)
        return self._encoder[1]

    def encode(
        self,
        conversations: Sequence[Conversation],
        sharer_conversations: Sequence[Any] | None = None,
        chat_template_kwargs: Kwargs | None = None,
    ) -> PromptBatch:
        """Conversations as a batch of prompts: chat templates, token alignment, left padding.

        Args:
            conversations: each a list of messages that ends with the one to answer.
            sharer_conversations: for each the messages that the sharers read instead (private context), or None.
            chat_template_kwargs: for each the arguments of the chat templates (`tools`, `documents`, ...).
        """
        if not conversations:
            raise PromptError("there are no conversations to encode: give at least one list of messages.")
        prompts = self.encoder.encode_many(conversations, sharer_conversations, chat_template_kwargs)
        return collate_prompts(prompts, self.encoder.receiver_pad_id, self.encoder.sharer_pad_ids)

    def forward(
        self,
        prompt: PromptBatch,
        response_ids: Int[Tensor, "batch response"],
        response_mask: Int[Tensor, "batch response"] | Bool[Tensor, "batch response"] | None = None,
        active_sharers: Sequence[int] | None = None,
    ) -> C2COutput:
        """Teacher-forced pass over prompts and responses (paper, Eq. 4).

        Args:
            prompt: the prompts, left padded.
            response_ids: (batch, response), right padded.
            response_mask: (batch, response), 1 for a supervised token; default all. Tokens before the last supervised
                one of a row are attended to, tokens after it are padding.
            active_sharers: indices of the sharers that take part, default all.
        """
        mask = torch.ones_like(response_ids) if response_mask is None else response_mask
        self._check_response(prompt, response_ids, mask)
        batch = TrainingBatch(self._checked(prompt), response_ids, mask.bool()).to(self.receiver.device)
        with self._exclusive():
            states = self.response_states(batch.prompt, batch.response, active_sharers)
            loss = self.receiver.cross_entropy(states[:, :-1], batch.response_ids, batch.supervised)
        return C2COutput(loss / len(batch.supervised), lambda: self.receiver.head.logits(states))

    def response_loss(self, batch: TrainingBatch, active_sharers: Sequence[int] | None = None) -> Tensor:
        """Summed cross-entropy of the supervised response tokens; a row's last one is predicted, but not run."""
        batch = batch.to(self.receiver.device)
        with self._exclusive():
            states = self.response_states(batch.prompt, batch.response_inputs, active_sharers)
            return self.receiver.cross_entropy(states, batch.response_ids, batch.supervised)

    def fuse(
        self,
        prompt: PromptBatch,
        active_sharers: Sequence[int] | None = None,
        sharer_kv: SharerKV | None = None,
        prefix: FusedPrompt | None = None,
    ) -> Cache:
        """The fused cache over all prompt tokens but the last, for transformers' `generate`; arguments as `prefill`."""
        with self._exclusive():
            return self.mode.generation_cache(self, self._fused(prompt, active_sharers, sharer_kv, prefix))

    @torch.no_grad()
    def prefill(
        self,
        prompt: PromptBatch,
        active_sharers: Sequence[int] | None = None,
        sharer_kv: SharerKV | None = None,
        prefix: FusedPrompt | None = None,
    ) -> FusedPrompt:
        """Fused caches of prompts, to be kept as the `prefix` of others: a long document, a growing chat.

        Args:
            prompt: the prompts, left padded.
            active_sharers: indices of the sharers that take part, default all.
            sharer_kv: caches to use instead of running the sharers, as from `prefill_sharers`.
            prefix: the result for one earlier prompt. Only tokens that a prompt does not share with it are computed;
                the result equals that without `prefix`.
        """
        with self._exclusive():
            return self._fused(prompt, active_sharers, sharer_kv, prefix)

    def read(self, *args: Any, **kwargs: Any) -> FusedPrompt:
        """The former name of `prefill`."""
        warnings.warn("C2CModel.read is now C2CModel.prefill.", DeprecationWarning, stacklevel=2)
        return self.prefill(*args, **kwargs)

    def _fused(
        self,
        prompt: PromptBatch,
        active_sharers: Sequence[int] | None,
        sharer_kv: SharerKV | None,
        prefix: FusedPrompt | None,
    ) -> FusedPrompt:
        prompt = self._checked(prompt).to(self.receiver.device)
        plan = self.mode.plan(prompt, self.fuser.config)
        origin = None if sharer_kv is not None else self._origin(active_sharers)
        start = None if prefix is None else match_prefix(prefix, prompt, plan, origin, self.mode.replaces_receiver)
        if sharer_kv is None:
            sharer_kv = self.prefill_sharers(prompt, active_sharers, None if start is None else start.sharer_kv)
        try:
            state = self.fuse_prompt(prompt, sharer_kv, start)
            wait_for(sharer_kv)  # the last prompt token alone may be fused, after this
        except SharerMissingError:
            arrived = leave_out_missing(sharer_kv, [sharer.spec.on_missing for sharer in self.sharers])
            missing = tuple(n for n, kv in enumerate(arrived) if kv is None and sharer_kv[n] is not None)
            return replace(self._fused(prompt, active_sharers, arrived, None), missing=missing)
        state = state.prefill(self.receiver, until=prompt.num_receiver_tokens - 1)
        return FusedPrompt(prompt, plan, sharer_kv, state.unfused_kv, state.fused_kv, origin, state.checkpoints)

    def _origin(self, active_sharers: Sequence[int] | None) -> Any:
        """Identity of everything but the tokens before them that determines fused entries; None if there is none."""
        # Dropout and gate noise are random; kinds that are not pointwise read the later tokens of a span too.
        if self.fuser.training or not self.fuser.is_pointwise:
            return None
        # An optimizer step or `load_state_dict` raises the version of a weight.
        weights = tuple((weight.data_ptr(), weight._version) for weight in self.fuser.parameters())
        models = tuple(id(lm.model) for lm in (self.receiver, *self.sharers))
        active = None if active_sharers is None else tuple(sorted(set(active_sharers)))
        return models, self.fuser.config, active, weights

    @torch.no_grad()
    def generate(
        self,
        prompt: PromptBatch,
        active_sharers: Sequence[int] | None = None,
        sharer_kv: SharerKV | None = None,
        prefix: FusedPrompt | None = None,
        **generate_kwargs: Any,
    ) -> Any:
        """Transformers' own `generate` on the fused cache: (batch, prompt + new) ids, or its `ModelOutput`.

        In greedy search, rows that have ended leave the batch.

        Args:
            prompt: the prompts, left padded.
            active_sharers: as in `prefill`.
            sharer_kv: as in `prefill`.
            prefix: as in `prefill`.
            generate_kwargs: all arguments of transformers' `generate`.
        """
        with self._exclusive():
            fused = self._fused(prompt, active_sharers, sharer_kv, prefix)
            self._check_continuation(fused, generate_kwargs)
            cache = self.mode.generation_cache(self, fused)
            return generate_rows(self.receiver, fused.prompt, cache, **generate_kwargs)

    def continue_from(self, fused: FusedPrompt, cache: Cache, **generate_kwargs: Any) -> Any:
        """As `generate`, on the generation cache of a fused prompt, which grows and keeps all rows."""
        self._check_continuation(fused, generate_kwargs)
        with self._exclusive():
            return generate(self.receiver, fused.prompt, cache, **generate_kwargs)

    def _check_continuation(self, fused: FusedPrompt, generate_kwargs: dict[str, Any]) -> None:
        length = fused.prompt.num_receiver_tokens
        wanted = new_tokens(self.receiver, fused.prompt, generate_kwargs)
        self.receiver.limits.check_continuation(length, length + wanted)

    def chat(
        self,
        conversations: Sequence[Conversation],
        sharer_conversations: Sequence[Any] | None = None,
        chat_template_kwargs: Kwargs | None = None,
        **generate_kwargs: Any,
    ) -> list[str]:
        """Answers to conversations, as text.

        Args:
            conversations: each a list of messages that ends with the one to answer.
            sharer_conversations: for each the messages that the sharers read instead, or None for the same.
            chat_template_kwargs: for each the arguments of the chat templates.
            generate_kwargs: all arguments of transformers' `generate`; several answers to a conversation are adjacent.
        """
        prompt = self.encode(conversations, sharer_conversations, chat_template_kwargs)
        output = self.generate(prompt, **generate_kwargs)
        ids = output if isinstance(output, Tensor) else output.sequences
        # `generate` returns the prompt too, left padded to one width.
        new = ids[:, prompt.num_receiver_tokens :]
        texts: list[str] = self.receiver.tokenizer.batch_decode(new, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _check_response(self, prompt: PromptBatch, ids: Tensor, mask: Tensor) -> None:
        """Refuse responses that do not fit the prompts, the mask or the vocabulary."""
        if len(ids) != len(prompt.receiver.input_ids) or ids.shape != mask.shape:
            raise PromptError(
                f"response_ids are {tuple(ids.shape)} and response_mask {tuple(mask.shape)}, but both must be "
                f"({len(prompt.receiver.input_ids)}, response)."
            )
        if ids.numel():
            self.receiver.limits.check_ids(TokenBatch(ids))

    def _checked(self, prompt: PromptBatch) -> PromptBatch:
        """The prompts, if the models can read them."""
        for lm, tokens in zip((self.receiver, *self.sharers), (prompt.receiver, *prompt.sharers), strict=False):
            lm.limits.check_ids(tokens)
        self.receiver.limits.check_length(prompt.num_receiver_tokens)
        return prompt

    def _exclusive(self) -> AbstractContextManager[None]:
        """Holds the locks of all models."""
        return exclusive((self.receiver, *self.sharers))

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Moves the frozen models too when the fuser is moved; never changes their type. CUDA: see `prefer_tf32`."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for parameter in islice(self.fuser.parameters(), 1):  # there is none where no layer is fused
            for model in (self.receiver, *self.sharers):
                model.to(parameter.device)
            prefer_tf32(parameter.device)
        return self
