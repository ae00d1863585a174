"""`/v1/models`: the served models."""

from pathlib import Path
from typing import Any

from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.serving.model_catalogue import ModelCatalogue
from c2c_lightning.serving.served_models import ServedModel


def model_list(catalogue: ModelCatalogue, created: int) -> dict[str, Any]:
    """All models."""
    return {"object": "list", "data": [model_object(served, created) for served in catalogue.models.values()]}


def model_object(served: ServedModel, created: int) -> dict[str, Any]:
    """One model, with its kind and its language models in the field `c2c`."""
    c2c = {
        "kind": served.kind,
        "receiver": shown_name(served.receiver),
        "sharers": [shown_name(sharer) for sharer in served.sharers],
        "context": served.receiver.max_tokens,
    }
    return {"id": served.name, "object": "model", "created": created, "owned_by": "c2c_lightning", "c2c": c2c}


def shown_name(lm: FrozenLM) -> str:
    """The name of a language model; of a local directory its last part, since folders are nobody's business."""
    path = Path(lm.spec.path).expanduser()
    return path.name if path.exists() or path.is_absolute() else lm.spec.path
