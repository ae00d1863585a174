"""OpenAI-compatible HTTP server: receiver, sharers, text-to-text and fused pairs as models to choose from.

From a request to its answer: `app` (HTTP) -> `chat_requests` (checks) -> `served_models` (encoding) -> `answer_engine`
(queue, batches, threads) -> `batch_generation` (prefill, fusion and `generate` of the model package) -> `answer_row`
(text, end, log-probabilities of each answer).
"""
