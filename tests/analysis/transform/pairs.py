"""Tiny pairs of models with their batches."""

from c2c_lightning.analysis.transform.model_pair import ModelPair, aligned_layers
from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.collate import collate_examples
from c2c_lightning.data.encode import Encoder
from c2c_lightning.model.load_lm import load_frozen
from tests.tiny import tiny_model, tiny_tokenizer

CHATS = [
    [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    for question, answer in (
        ("What is the capital of Arlen?", "Velmora."),
        ("Name a city.", "The answer is Velmora, by the river."),
        ("Why does the river bend and the morning come?", "12 + 34"),
    )
]


def tiny_model_pair(receiver: str = "qwen3", sharer: str = "llama", only_last: bool = False) -> ModelPair:
    """Two models of other sizes and tokenizers."""
    own = load_frozen((tiny_model(receiver, 0), tiny_tokenizer("chatml")))
    theirs = load_frozen((tiny_model(sharer, 1), tiny_tokenizer("header")))
    return ModelPair(own, theirs, aligned_layers(own, theirs, "skip", only_last))


def chat_batch(pair: ModelPair) -> TrainingBatch:
    """`CHATS`, with tokens aligned by `span`."""
    encoder = Encoder(pair.receiver.tokenizer_spec, [pair.sharer.tokenizer_spec], "span")
    examples = [encoder.encode_example(chat) for chat in CHATS]
    return collate_examples(examples, encoder.receiver_pad_id, encoder.sharer_pad_ids)
