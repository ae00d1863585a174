"""torch.compile of the fuser."""

from c2c_lightning.errors import ConfigurationError
from c2c_lightning.fuser.fuser import Fuser


def compile_fuser(fuser: Fuser, choice: bool | str) -> None:
    """Compile the modules that run over packed tokens in place; names in state dicts stay the same.

    Numbers of tokens differ between batches, so shapes are dynamic: one compilation for training, one for validation.
    Compiled code belongs to the process; a copied or saved fuser is not compiled.

    Args:
        fuser: the fuser.
        choice: False for none, True for inductor, or a backend of `torch.compile`; `eager` and `aot_eager` need no
            compiler.

    Raises:
        ConfigurationError: the backend is unknown.
    """
    if choice is False:
        return
    backend = "inductor" if choice is True else choice
    # A local import: it takes a second, which other runs need not spend.
    from torch._dynamo import list_backends

    if backend not in (known := list_backends(exclude_tags=())):
        raise ConfigurationError(f"compile_fuser: {backend!r} is not a backend; choose from {', '.join(known)}.")
    for sharer in fuser.sharers:
        for group in sharer.groups:
            for part in group.compiled_parts():
                part.compile(backend=backend, dynamic=True)
