"""Metadata and dequantised tensors of a GGUF file."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from c2c_lightning.errors import MissingExtraError, ModelLoadError


class GGUFFile:
    """An open GGUF file.

    Args:
        path: the file.

    Raises:
        MissingExtraError: the library `gguf` is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import gguf
        except ImportError as problem:
            raise MissingExtraError("GGUF files need the library gguf: pip install gguf") from problem
        self._library = gguf
        self._reader = gguf.GGUFReader(str(path))
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self.architecture = str(self["general.architecture"])

    def __getitem__(self, key: str) -> Any:
        """A value of the metadata; keys that begin with a dot are those of the architecture."""
        name = f"{self.architecture}{key}" if key.startswith(".") else key
        field = self._reader.fields.get(name)
        if field is None:
            raise ModelLoadError(f"The GGUF file has no metadata `{name}`.")
        return field.contents()

    def __contains__(self, tensor: str) -> bool:
        """Whether the file has a tensor."""
        return tensor in self._tensors

    def token_id(self, name: str) -> int:
        """The id of a special token, such as `eos`."""
        return int(self[f"tokenizer.ggml.{name}_token_id"])

    def state_dict(self, parameters: list[str], num_layers: int) -> dict[str, Tensor]:
        """Tensors by the parameters of transformers that they belong to, in float32.

        Raises:
            ModelLoadError: a parameter has no tensor, or a tensor no parameter.
        """
        kinds = {name: kind for kind, name in self._library.MODEL_ARCH_NAMES.items()}
        names = self._library.get_tensor_name_map(kinds[self.architecture], num_layers)
        theirs = {parameter: names.get_name(parameter, (".weight", ".bias")) for parameter in parameters}
        if missing := [parameter for parameter, tensor in theirs.items() if tensor not in self._tensors]:
            raise ModelLoadError(f"The GGUF file has no tensor for {missing[0]} ({len(missing)} in all).")
        if unused := set(self._tensors) - set(theirs.values()):
            raise ModelLoadError(f"The GGUF file has tensors without a parameter: {', '.join(sorted(unused)[:3])}.")
        return {parameter: self._tensor(str(tensor)) for parameter, tensor in theirs.items()}

    def _tensor(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        values = self._library.dequantize(tensor.data, tensor.tensor_type)
        return torch.from_numpy(values.copy())  # the file's memory map is read-only
