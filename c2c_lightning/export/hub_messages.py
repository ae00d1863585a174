"""Failed requests to the Hugging Face hub as one sentence: the cause and its remedy. A message never has a token."""

from collections.abc import Iterator

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

LOG_IN = "Log in with `hf auth login`, or set the environment variable HF_TOKEN"

# The base class is that of the HTTP library in use, whose other errors are failed connections.
REQUEST_ERRORS: tuple[type[Exception], ...] = (OSError, HFValidationError, *HfHubHTTPError.__bases__)
"""Classes of all exceptions of a failed request."""


def hub_message(error: BaseException, repo_id: str, revision: str | None = None) -> str:
    """Why a request failed, and how to mend it.

    Args:
        error: the exception of `huggingface_hub`.
        repo_id: the repository that was asked for.
        revision: the branch, tag or commit that was asked for.
    """
    for problem in _causes(error):
        if message := _message(problem, repo_id, revision):
            return message
    return (
        f"the hub at {constants.ENDPOINT} cannot be reached ({type(error).__name__}). Check the connection and the "
        "environment variable HF_ENDPOINT, or name a local directory."
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _message(problem: BaseException, repo_id: str, revision: str | None) -> str | None:
    if isinstance(problem, OfflineModeIsEnabled):
        return (
            "the hub is not asked, because HF_HUB_OFFLINE is set, and the local cache has no such revision. Unset it, "
            "or name a local directory."
        )
    if isinstance(problem, HFValidationError):
        return f"{repo_id!r} is no name on the hub. Names are OWNER/NAME: letters, digits, `-`, `_` and `.`."
    if isinstance(problem, RevisionNotFoundError):
        return f"the hub's {repo_id} has no revision {revision!r}. Name an existing branch, tag or commit."
    if isinstance(problem, GatedRepoError):
        return f"{repo_id} is gated: request access on its page, and use a token of that account. {LOG_IN}."
    if isinstance(problem, LocalTokenNotFoundError):
        return f"there is no access token. {LOG_IN}."
    if isinstance(problem, OSError) and problem.filename is not None and problem.strerror is not None:
        return f"{problem.filename} cannot be used: {problem.strerror}."
    return _of_response(problem, repo_id) if isinstance(problem, HfHubHTTPError) else None


def _of_response(problem: HfHubHTTPError, repo_id: str) -> str:
    """By the status of the response; the hub answers 401 for private and for missing repositories alike."""
    status = problem.response.status_code
    if isinstance(problem, RepositoryNotFoundError) or status == 404:
        return f"the hub has no repository {repo_id} that you may read. Check the name. If it is private: {LOG_IN}."
    if status == 401:
        return f"the hub accepts no request without a valid access token. {LOG_IN} to a token with write permission."
    if status == 403:
        return f"the access token does not permit this for {repo_id}. {LOG_IN} to a token with write permission."
    said = (problem.server_message or "no explanation").strip().partition("\n")[0]
    return f"the hub refused the request for {repo_id} with status {status} ({said})."
