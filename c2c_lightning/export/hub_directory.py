"""The directory of a hub: `hub_config.json`, `model.safetensors` and a card; read strictly, written atomically."""

from dataclasses import dataclass, replace
from pathlib import Path

from c2c_lightning.errors import FuserFormatError
from c2c_lightning.export.description import TrainingRecord
from c2c_lightning.export.format import CONFIG_NAME, HUB_CONFIG_NAME, WEIGHTS_NAME, save_fuser, write_files
from c2c_lightning.export.from_checkpoint import HUB_KEY, fuser_tensors, load_checkpoint
from c2c_lightning.export.fuser_tensors import check_checksum, load_strictly, read_tensors
from c2c_lightning.export.hub_description import HubDescription
from c2c_lightning.export.json_file import read_json
from c2c_lightning.fuser.direction import Direction
from c2c_lightning.fuser.hub_fuser import HubFuser


@dataclass(frozen=True)
class SavedHub:
    """A hub read from disk, in evaluation mode, and its description."""

    description: HubDescription
    fuser: HubFuser

    def save(self, directory: str | Path, overwrite: bool = False) -> Path:
        """Write the directory of the hub; see `save_hub`."""
        return save_hub(directory, self.fuser, self.description, overwrite)

    def export(self, direction: Direction, directory: str | Path, overwrite: bool = False) -> Path:
        """Write the fuser of a direction as an ordinary fuser directory; see `save_fuser`.

        Raises:
            FuserConfigError: an unknown model, or one without the part that is needed.
            FuserFormatError: the directory holds another fuser.
        """
        pair = self.fuser.pair(direction)
        return save_fuser(directory, pair, self.description.pair(self.fuser, direction), overwrite)


def save_hub(directory: str | Path, fuser: HubFuser, description: HubDescription, overwrite: bool = False) -> Path:
    """Write the directory of a hub: all of its files, or none. Language models are only named in it.

    Args:
        directory: the directory; other files in it are kept.
        fuser: the hub, on any device.
        description: its description.
        overwrite: whether a hub with other weights may be replaced.

    Raises:
        FuserFormatError: weights that are not finite, or a directory that holds another hub or a fuser.
    """
    target = Path(directory).expanduser()
    if (target / CONFIG_NAME).exists():
        raise FuserFormatError(f"{target} holds the fuser of one pair, so a hub cannot be written there.")
    content = description.to_json()
    return write_files(target, fuser.state_dict(), HUB_CONFIG_NAME, content, hub_card(fuser, description), overwrite)


def load_hub(path: str | Path) -> SavedHub:
    """Read a hub from its directory or from a checkpoint, without its language models; weights are float32.

    Raises:
        FuserFormatError: no hub there, or a file that is missing, damaged, of a newer format, or does not fit the
            other.
        CheckpointError: a damaged checkpoint, or one of another training.
    """
    folder = Path(path).expanduser()
    if folder.suffix == ".ckpt":
        return _from_checkpoint(folder)
    config, weights = folder / HUB_CONFIG_NAME, folder / WEIGHTS_NAME
    if not config.is_file():
        raise FuserFormatError(
            f"there is no hub at {str(path)!r}: it holds no {HUB_CONFIG_NAME}. Name a directory or a checkpoint that "
            "`lightning fuser-hub fit` wrote."
        )
    raw = read_json(config)
    description = HubDescription.from_json(raw, str(config))
    tensors = read_tensors(weights)
    fuser = load_strictly(description.build, tensors, str(weights))
    check_checksum(tensors, raw.get("checksum"), str(weights))
    return SavedHub(description, fuser.float().eval())


def _from_checkpoint(path: Path) -> SavedHub:
    checkpoint = load_checkpoint(path, HUB_KEY)
    description = HubDescription.from_json(checkpoint[HUB_KEY], str(path))
    fuser = load_strictly(description.build, fuser_tensors(checkpoint), str(path))
    record = description.training or TrainingRecord(steps=checkpoint.get("global_step"))
    return SavedHub(replace(description, training=record), fuser.float().eval())


def hub_card(fuser: HubFuser, description: HubDescription) -> str:
    """The card of a hub: models, trained directions, parameters of each part."""
    models = "".join(f"| `{name}` | {model.name} |\n" for name, model in description.models.items())
    parts = "".join(f"| {name} | {count:,} |\n" for name, count in fuser.num_parameters().items())
    trained = ", ".join(map(str, description.directions))
    return (
        "# A hub of Cache-to-Cache fusers\n\n"
        "One encoder per sharer into a common latent, one decoder per receiver, gates per direction "
        "([arXiv 2510.03215](https://arxiv.org/abs/2510.03215), appendix A.5.2). The fuser of a pair:\n\n"
        "```bash\nlightning fuser-hub export --hub DIR --direction SHARER_to_RECEIVER --output_dir FUSER\n```\n\n"
        f"| name | model |\n| --- | --- |\n{models}\n"
        f"Trained directions: {trained}.\n\n"
        f"| part | parameters |\n| --- | ---: |\n{parts}"
    )
