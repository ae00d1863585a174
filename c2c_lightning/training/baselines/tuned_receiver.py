"""The receiver as the trained model, without a sharer."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Self

from jaxtyping import Float
from torch import Tensor, nn

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.parameter_roles import ParameterRoles
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.response_prefix import ResponsePrefix
from c2c_lightning.ops.chunked_cross_entropy import summed_loss
from c2c_lightning.training.train_model import TrainModel


class TunedReceiver(TrainModel):
    """A receiver that reads its own prompt, with parameters that are trained: adapters, or weights of its own.

    Only the trained parameters are in the state dict, so a checkpoint holds nothing else and is loaded strictly.

    Args:
        receiver: the receiver; its parameters with `requires_grad` are trained.
    """

    def __init__(self, receiver: FrozenLM) -> None:
        super().__init__(receiver, (), FuserConfig())
        named = receiver.model.named_parameters()
        trained = {name.replace(".", "/"): parameter for name, parameter in named if parameter.requires_grad}
        # The same parameters as in the receiver, which is no submodule.
        self.trained = nn.ParameterDict(trained)
        self.has_bare_receiver = self.has_adapters = hasattr(receiver.model, "peft_config")

    @property
    def num_trained(self) -> int:
        """Number of trained parameters."""
        return sum(parameter.numel() for parameter in self.trained.values())

    def batch_loss(self, batch: TrainingBatch, active_sharers: tuple[int, ...] | None = None) -> Tensor:
        """Summed cross-entropy of the supervised response tokens, (); with `active_sharers=()` without adapters."""
        batch = batch.to(self.receiver.device)
        tokens = batch.prompt.receiver.append(batch.response_inputs)
        empty = self.receiver.empty_kv(len(batch))
        with self._exclusive(), self._recomputation(), self._adapters(is_active=active_sharers is None):
            # Prompt and response in one pass: gradients reach the weights through the prompt's entries too.
            states = self.receiver.hidden_states(tokens, ResponsePrefix(empty, states=self.receiver.no_states))
            return self._cross_entropy(states[:, batch.prompt.num_receiver_tokens - 1 :], batch)

    def _adapters(self, is_active: bool) -> AbstractContextManager[Any]:
        if is_active or not self.has_adapters:
            return nullcontext()
        context: AbstractContextManager[Any] = _without_adapters(self.receiver.model)
        return context

    def _cross_entropy(self, states: Float[Tensor, "batch n width"], batch: TrainingBatch) -> Tensor:
        if self.has_adapters:
            return self.receiver.cross_entropy(states, batch.response_ids, batch.supervised)
        # The chunked loss has no gradient for the weights of the output head.
        chosen = states.flatten(0, 1).index_select(0, batch.supervised)
        targets = batch.response_ids.flatten().index_select(0, batch.supervised)
        return summed_loss(self.receiver.head.logits(chosen), targets)

    def parameter_roles(self) -> ParameterRoles:
        """The trained parameters; vectors (norms, biases) have no weight decay by default."""
        parameters = list(self.trained.values())
        return ParameterRoles([p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1], [])

    def write(self, directory: Path, is_first_process: bool) -> None:
        """Write adapters in PEFT's format, or the whole model with its tokenizer in transformers'."""
        if not is_first_process:
            return
        directory.parent.mkdir(parents=True, exist_ok=True)
        # In the folder of the target: a rename within one file system is atomic.
        staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
        try:
            self._save(staging)
            staging.chmod(0o755)
            shutil.rmtree(directory, ignore_errors=True)
            staging.rename(directory)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _save(self, folder: Path) -> None:
        if self.has_adapters:
            # `auto` asks the hub whether the embeddings were resized.
            self.receiver.model.save_pretrained(folder, save_embedding_layers=False)
            return
        self.receiver.model.save_pretrained(folder)
        self.receiver.tokenizer.save_pretrained(folder)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Moves the whole receiver where its trained parameters go."""
        super()._apply(fn, recurse)
        if self.receiver.spec.device is None:
            # Not `FrozenLM.to`, which looks at one parameter: it may be a trained one, which has moved already.
            self.receiver.model.to(next(iter(self.trained.values())).device)
        return self


@contextmanager
def _without_adapters(model: Any) -> Iterator[None]:
    """The model without its adapters, whose parameters are trained again afterwards."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        with model.disable_adapter():
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
