"""C2C with a part of the prompt fused (paper, Fig. 11)."""

from collections.abc import Sequence
from typing import Literal

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.data.messages import Conversation
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.responders.c2c_responder import C2CResponder

Side = Literal["former", "latter"]


class PartialFusion(C2CResponder):
    """Only a share of each prompt's fused tokens is fused: the first of them (`former`), or the last (`latter`)."""

    def __init__(
        self, model: C2CModel, share: float, side: Side, name: str = "c2c-part", measure_latency: bool = False
    ) -> None:
        super().__init__(model, name, measure_latency)
        self.share, self.side = share, side

    def encode(self, conversations: Sequence[Conversation]) -> PromptBatch:
        """The prompts with fewer fused tokens."""
        return super().encode(conversations).with_share(self.share, self.side)
