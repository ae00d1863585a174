"""The section of `lightning doctor` on a language model."""

from collections.abc import Iterator

from c2c_lightning.commands.doctor_sections import Finding
from c2c_lightning.errors import C2CError, FuserFormatError, HubError


class LanguageModel:
    """The layers of a language model that take part in C2C, and whether it fits a fuser."""

    title = "Model"

    def __init__(self, path: str, fuser: str | None) -> None:
        """Take a model directory or hub id, and a fuser to compare it with."""
        self.path, self.fuser = path, fuser

    def findings(self) -> Iterator[Finding]:
        """A model that is refused, that cannot be loaded or that fits no role of the fuser is a problem."""
        from c2c_lightning.model.model_report import report_model

        try:
            report = report_model(self.path, self.fuser)
        except C2CError as error:
            of_fuser = self.fuser is not None and isinstance(error, (FuserFormatError, HubError))
            yield Finding(str(self.fuser) if of_fuser else self.path, str(error), True)
            return
        if report.refusal is not None:
            yield Finding(self.path, report.refusal, True)
            return
        context = "" if report.max_tokens is None else f", context of {report.max_tokens} tokens"
        text = f"{report.architecture}: {report.num_fused} of {len(report.layers)} layers take part{context}"
        yield Finding(self.path, text)
        for numbers, description in report.layer_groups():
            yield Finding(f"layer {numbers}" if numbers.isdigit() else f"layers {numbers}", description)
        for fit in report.fits:
            # A model need not fit every role, but one of them.
            is_problem = all(other.problem for other in report.fits)
            fits = f"fits, as {fit.trained_with}" if fit.problem is None else f"does not fit: {fit.problem}"
            yield Finding(f"as {fit.role}", fits, is_problem)
