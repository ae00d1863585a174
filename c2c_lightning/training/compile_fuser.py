"""torch.compile of the fuser."""

from c2c_lightning.errors import ConfigurationError
from c2c_lightning.fuser.fuser import Fuser


def compile_fuser(fuser: Fuser, backend: str) -> None:
    """Compile what runs over packed tokens, in place: names in state dicts stay as they are.

    Numbers of tokens differ from batch to batch, so shapes are dynamic: one compilation for training, one for
    validation. Compiled code belongs to the process; a copied or saved fuser is a plain one.

    Args:
        fuser: the fuser.
        backend: of `torch.compile`; `eager` and `aot_eager` need no compiler.

    Raises:
        ConfigurationError: there is no such backend.
    """
    # Imported here: it takes a second that uncompiled runs need not spend.
    from torch._dynamo import list_backends

    if backend not in (known := list_backends(exclude_tags=())):
        raise ConfigurationError(f"compile_fuser: there is no backend {backend!r}; there are {', '.join(known)}.")
    for sharer in fuser.sharers:
        for group in sharer.groups:
            for part in group.children():
                part.compile(backend=backend, dynamic=True)
