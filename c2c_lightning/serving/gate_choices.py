"""The same fused model with its gates as trained, all open or all closed."""

import copy
import threading
from typing import Literal

from c2c_lightning.errors import PromptError
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.model.c2c import C2CModel

GateChoice = Literal["trained", "open", "closed"]


class GateChoices:
    """Makes the model of a choice at its first use; all share every weight but the gate logits."""

    def __init__(self, model: C2CModel) -> None:
        """Take the model with its trained gates."""
        self._models: dict[GateChoice, C2CModel] = {"trained": model}
        self._lock = threading.Lock()

    def model(self, choice: GateChoice) -> C2CModel:
        """The model with a choice of gates.

        Raises:
            PromptError: the fuser has no gates.
        """
        trained = self._models["trained"]
        if choice != "trained" and not any(True for _ in trained.fuser.gates()):
            raise PromptError(
                f"`gates` is {choice!r}, but a fuser of kind {trained.fuser.config.kind!r} has no gates. Leave it out."
            )
        with self._lock:
            if choice not in self._models:
                fuser = with_gates(trained.fuser, choice == "open")
                self._models[choice] = C2CModel(trained.receiver, trained.sharers, fuser).eval()
            return self._models[choice]


def with_gates(fuser: Fuser, is_open: bool) -> Fuser:
    """A fuser with open or closed gates that shares all other tensors with the given one."""
    own = {id(tensor) for _, _, *gates in fuser.gates() for gate in gates for tensor in gate.parameters()}
    shared = {id(tensor): tensor for tensor in (*fuser.parameters(), *fuser.buffers()) if id(tensor) not in own}
    changed = copy.deepcopy(fuser, dict(shared))
    changed.force_gates(is_open)
    return changed
