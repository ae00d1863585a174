"""A fuser's weights under the authors' names, as the released training loop takes them."""

from c2c_lightning.export.released.convert import groups_of
from c2c_lightning.export.released.projector_layout import released_name, unstack_layer
from c2c_lightning.fuser.fuser import Fuser
from tests.training.released_loop import Weights


def released_weights(fuser: Fuser) -> list[dict[int, Weights]]:
    """Each sharer's weights under the authors' names, by receiver layer."""
    weights: list[dict[int, Weights]] = [{} for _ in fuser.sharers]
    for number, _, group in groups_of(fuser):
        for place, layer in enumerate(group.receiver_layers):
            weights[number][layer] = {
                released_name(name, fuser.sharers[number].kind_config): unstack_layer(name, value.detach(), place)
                for name, value in group.named_parameters()
            }
    return weights
