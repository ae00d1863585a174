"""The models of the training tests."""

from tests.training.conftest import models

__all__ = ["models"]
