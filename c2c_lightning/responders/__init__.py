"""Responders that C2C is compared with."""
