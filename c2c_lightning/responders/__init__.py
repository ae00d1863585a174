"""Responders, which answer conversations in an evaluation: single models, T2T, routing, C2C."""
