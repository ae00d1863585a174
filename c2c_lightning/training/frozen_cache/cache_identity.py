"""The identity of a folder of kept rows; a folder of other models, tokenizers or types is refused."""

import hashlib
import json
import os
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from c2c_lightning.errors import FrozenCacheError
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.model_fingerprint import model_fingerprint

_FILE = "identity.json"
_VERSION = 1


@dataclass(frozen=True)
class CacheIdentity:
    """Everything but the tokens of a row that its kept entries depend on.

    Attributes:
        model: fingerprint of the model's weights, see `model_fingerprint`.
        name: path or hub id of the model, for messages.
        dtype: type of its weights.
        quantization: how it is quantised while it is loaded, in JSON.
        precision: precision of the training (`trainer.precision`), whose autocast changes the entries.
        tokens: fingerprint of the tokenizers, chat templates and token alignment of all models.
        layers: the layers that are kept.
        version: of the format.
    """

    model: str
    name: str
    dtype: str
    quantization: str
    precision: str
    tokens: str
    layers: tuple[int, ...]
    version: int = _VERSION

    @classmethod
    def of(cls, lm: FrozenLM, layers: tuple[int, ...], tokens: str, precision: str) -> "CacheIdentity":
        """The identity of the caches of a model, in a training of some precision."""
        dtype, quantization = str(lm.model.dtype).removeprefix("torch."), json.dumps(lm.spec.quantization)
        return cls(model_fingerprint(lm), lm.spec.path, dtype, quantization, precision, tokens, layers)

    @property
    def digest(self) -> str:
        """24 hexadecimal digits."""
        content = {name: value for name, value in asdict(self).items() if name != "name"}
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]

    def claim(self, folder: Path) -> None:
        """Mark a new folder with this identity, or check that it has it.

        Raises:
            FrozenCacheError: the folder is of something else, which the message names.
        """
        folder.mkdir(parents=True, exist_ok=True)
        content, path = json.loads(json.dumps(asdict(self))), folder / _FILE
        staging = folder / f".{_FILE}.{uuid.uuid4().hex}"
        staging.write_text(json.dumps(content, indent=2) + "\n")
        try:
            os.link(staging, path)  # fails where another process was first
        except FileExistsError:
            self._compare(content, path)
        finally:
            staging.unlink()

    def _compare(self, mine: dict[str, Any], path: Path) -> None:
        try:
            theirs = json.loads(path.read_text())
        except ValueError as error:
            raise FrozenCacheError(
                f"{path} is damaged ({error}). Delete the folder {path.parent}: its caches are computed again."
            ) from error
        found = [text for name, text in _DIFFERENCES.items() if theirs.get(name) != mine[name]]
        if found:
            raise FrozenCacheError(
                f"the kept caches in {path.parent} were made with {' and '.join(found)} than those of this run "
                f"({theirs.get('name')} in {theirs.get('dtype')} there, {self.name} in {self.dtype} here). Set "
                "`model.cache_frozen_dir` to another folder, or delete this one."
            )


_DIFFERENCES = {
    "version": "another format",
    "model": "another model",
    "dtype": "another type of weights",
    "quantization": "another quantisation",
    "precision": "another `trainer.precision`",
    "tokens": "other tokenizers, chat templates or token alignment",
    "layers": "other layers of the sharer",
}
