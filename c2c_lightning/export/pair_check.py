"""Whether language models are those that a fuser was trained for."""

import logging
from collections.abc import Sequence

from c2c_lightning.errors import PairMismatchError
from c2c_lightning.export.description import FuserDescription, ModelReference

logger = logging.getLogger(__name__)


def check_models(description: FuserDescription, receiver: ModelReference, sharers: Sequence[ModelReference]) -> None:
    """Refuse models that the fuser was not trained for.

    Another tokenizer gives a warning only: templates and special tokens change between revisions of a model.

    Raises:
        PairMismatchError: another number of sharers, or a KV-cache of another shape.
    """
    if len(sharers) != len(description.sharers):
        names = ", ".join(sharer.name for sharer in description.sharers)
        raise PairMismatchError(
            f"the fuser has {len(description.sharers)} sharers ({names}), but {len(sharers)} were given. "
            "Give one model for each, in this order."
        )
    wanted, given = (description.receiver, *description.sharers), (receiver, *sharers)
    numbers = [""] if len(sharers) == 1 else [f" {number}" for number in range(len(sharers))]
    roles = ["receiver", *(f"sharer{number}" for number in numbers)]
    are_swapped = [model.geometry for model in given] == [model.geometry for model in reversed(wanted)]
    for role, want, have in zip(roles, wanted, given, strict=True):
        if want.geometry != have.geometry:
            advice = f"Pass {want.name!r} as {role}, or train a fuser for this pair."
            raise PairMismatchError(
                f"the fuser was trained for the {role} {want.name} ({want.geometry.describe()}), but {have.name} has "
                f"{have.geometry.describe()}. {'Receiver and sharer seem to be swapped.' if are_swapped else advice}"
            )
        fingerprints = want.tokenizer_fingerprint, have.tokenizer_fingerprint
        if None not in fingerprints and len(set(fingerprints)) > 1:
            logger.warning(
                "the tokenizer or chat template of %s %s is not the one that the fuser was trained with (%s). "
                "Answers may be worse; pin the revision if they are.",
                role,
                have.name,
                want.name,
            )
