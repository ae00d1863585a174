"""Upload of fuser directories to the Hugging Face hub."""

import logging
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi

from c2c_lightning.errors import FuserFormatError, HubError
from c2c_lightning.export.format import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, load_fuser
from c2c_lightning.export.hub_messages import REQUEST_ERRORS, hub_message

# ValueError: a malformed answer; RuntimeError: wraps the failed upload of a single file.
UPLOAD_ERRORS: tuple[type[Exception], ...] = (*REQUEST_ERRORS, ValueError, RuntimeError)

logger = logging.getLogger(__name__)


def push_directory(
    directory: str | Path,
    repo_id: str,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a fuser of c2c_lightning",
) -> CommitInfo:
    """Upload the three files of a fuser directory as one commit of a model repository, which is created if needed.

    The access token is the one that `huggingface_hub` finds: the environment variable HF_TOKEN or `hf auth login`.

    Args:
        directory: fuser directory; it is read and checked first, and its other files are not uploaded.
        repo_id: name on the hub, OWNER/NAME.
        private: whether a new repository is private; None for the owner's default.
        revision: branch, created if needed; default the main branch.
        commit_message: title of the commit.

    Returns:
        The commit: `oid` is its revision, `commit_url` its page.

    Raises:
        FuserFormatError: the directory holds no valid fuser.
        HubError: the upload failed.
    """
    load_fuser(directory)
    if not (Path(directory) / CARD_NAME).is_file():
        raise FuserFormatError(f"{directory} has no {CARD_NAME}, its model card. Export the fuser again.")
    api = HfApi()
    try:
        name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(name, branch=revision, exist_ok=True)
        files = [CONFIG_NAME, WEIGHTS_NAME, CARD_NAME]
        commit: CommitInfo = api.upload_folder(
            repo_id=name,
            folder_path=directory,
            revision=revision,
            allow_patterns=files,
            commit_message=commit_message,
        )
    except UPLOAD_ERRORS as error:
        raise HubError(f"the fuser was not uploaded to {repo_id}: {hub_message(error, repo_id, revision)}") from error
    logger.info("fuser uploaded to %s", commit.commit_url)
    return commit
