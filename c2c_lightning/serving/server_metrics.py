"""Prometheus metrics of one app, in a registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from c2c_lightning.serving.answer_engine import AnswerEngine
from c2c_lightning.serving.answer_row import AnswerRow
from c2c_lightning.serving.prefix_cache import PrefixCache

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class ServerMetrics:
    """Counts requests, answers and tokens, and measures times and batches.

    Attributes:
        registry: holds the metrics of this app alone, so that several apps may live in one process.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("c2c_requests", "Requests by path and status.", ["path", "status"], registry=registry)
        self.answers = Counter("c2c_answers", "Answers by model and end.", ["model", "end"], registry=registry)
        self.tokens = Counter("c2c_tokens", "Tokens by model and kind.", ["model", "kind"], registry=registry)
        self.first_token = Histogram(
            "c2c_first_token_seconds", "Time to the first token.", ["model"], buckets=_SECONDS, registry=registry
        )
        self.seconds = Histogram(
            "c2c_answer_seconds", "Time to the end of an answer.", ["model"], buckets=_SECONDS, registry=registry
        )
        self.batch_size = Histogram(
            "c2c_batch_size", "Answers in a batch.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )

    def watch(self, engine: AnswerEngine, prefixes: PrefixCache) -> None:
        """Report the state of queue and caches whenever metrics are read."""
        gauges = {
            "c2c_answers_waiting": ("Answers in the queue.", lambda: len(engine.waiting)),
            "c2c_answers_running": ("Answers that are being generated.", lambda: engine.num_running),
            "c2c_prefix_cache_bytes": ("Bytes of kept prompts.", lambda: prefixes.num_bytes),
            "c2c_prefix_cache_prompts": ("Kept prompts.", lambda: len(prefixes)),
        }
        for name, (text, value) in gauges.items():
            Gauge(name, text, registry=self.registry).set_function(value)

    def count(self, model: str, row: AnswerRow) -> None:
        """Count an answer that has ended."""
        end = "error" if row.error is not None else row.ended_by or row.finish_reason or "client"
        self.answers.labels(model, end).inc()
        facts = {"prompt": row.facts.get("prompt_tokens", 0), "completion": len(row.ids)}
        facts |= {name: row.facts.get(f"{name}_tokens", 0) for name in ("sharer", "message")}
        for kind, tokens in facts.items():
            self.tokens.labels(model, kind).inc(tokens)
        if "first_token" in row.seconds:
            self.first_token.labels(model).observe(row.seconds["first_token"])
        if "total" in row.seconds:
            self.seconds.labels(model).observe(row.seconds["total"])

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
