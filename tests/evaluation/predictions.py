"""Predictions for tests of reports."""

from c2c_lightning.evaluation.prediction_log import Prediction


def answered(responder: str, right: list[bool], new_tokens: int = 2, **details: object) -> list[Prediction]:
    """One answer to each question of the benchmark `facts`."""
    return [
        Prediction(
            "facts", responder, 0, n, str(n), "", "?", "", None, "", float(is_right), is_right,
            new_tokens=new_tokens + n, **details,  # type: ignore[arg-type]
        )
        for n, is_right in enumerate(right)
    ]  # fmt: skip
