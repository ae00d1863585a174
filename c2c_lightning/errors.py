"""Everything a user can cause, by name. Each message says what is wrong, where, and how to mend it."""


class C2CError(Exception):
    """Base of all errors that a user can mend; the command line prints its message and exits with 1."""


class UnsupportedModelError(C2CError):
    """A language model whose cache cannot be fused (linear attention, shared KV, encoder-decoder, ...)."""


class ModelLoadError(C2CError):
    """A language model or its tokenizer that cannot be loaded."""


class LayerMapError(C2CError):
    """A receiver layer mapped to a sharer layer that does not exist, or a map of the wrong length."""


class FuserConfigError(C2CError):
    """A choice in the fuser's configuration that is not possible."""


class FuserInputError(C2CError):
    """A fuser that is called without something that its kind needs."""


class PairMismatchError(C2CError):
    """A fuser and a pair of models that do not belong together."""


class FuserFormatError(C2CError):
    """A fuser directory that is incomplete, cut short, or of another format."""


class AlignmentError(C2CError):
    """Two tokenizations that cannot be aligned."""


class PromptError(C2CError):
    """A prompt that cannot be encoded or is longer than the models allow."""


class DataError(C2CError):
    """A data file that is missing, empty or has too many rows that do not fit."""


class BenchmarkError(C2CError):
    """A benchmark that is unknown, malformed or empty."""


class MissingExtraError(C2CError):
    """An optional dependency that is not installed."""


class CheckpointError(C2CError):
    """A Lightning checkpoint that is missing, cut short or of another run."""


class GenerationError(C2CError):
    """A way to generate that would silently give wrong tokens on a fused cache."""


class CacheStateError(C2CError):
    """A hybrid model's cache that cannot be continued, since its recurrent and convolution states are missing."""


class FrozenCacheError(C2CError):
    """Kept caches of frozen models that were made with something else, or a limit that no row fits in."""


class ConfigurationError(C2CError):
    """A run's configuration with values that one of its parts refuses."""


class RemoteServerError(C2CError):
    """A server elsewhere that cannot be reached, or refuses a request."""


class NonFiniteError(C2CError):
    """A NaN or an infinity in a loss, a gradient or a weight."""


class ChannelError(C2CError):
    """Bytes of a sharer's cache that are cut short, damaged, too large, or of other models."""


class HubError(C2CError):
    """A fuser that cannot be uploaded to the hub: no login, no permission, no connection, or an impossible name."""


class ReportError(C2CError):
    """An evaluation report that cannot be read, or that measured another fuser."""


def problem_origin(problem: BaseException) -> str:
    """The module that raised an exception."""
    trace = problem.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
