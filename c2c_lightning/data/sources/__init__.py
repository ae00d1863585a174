"""Sources of conversations. Each is one class, chosen in YAML by its `class_path`."""

from c2c_lightning.data.sources.chat import Messages, OpenHermes
from c2c_lightning.data.sources.choice import MultipleChoice
from c2c_lightning.data.sources.continued_texts import ContinuedTexts
from c2c_lightning.data.sources.mixture import Mixture
from c2c_lightning.data.sources.private_documents import PrivateDocuments
from c2c_lightning.data.sources.question import GSM8K, LongBench, PromptResponse
from c2c_lightning.data.sources.selected_rows import SelectedRows
from c2c_lightning.data.sources.source import Source, TableSource

__all__ = [
    "GSM8K",
    "ContinuedTexts",
    "LongBench",
    "Messages",
    "Mixture",
    "MultipleChoice",
    "OpenHermes",
    "PrivateDocuments",
    "PromptResponse",
    "SelectedRows",
    "Source",
    "TableSource",
]
