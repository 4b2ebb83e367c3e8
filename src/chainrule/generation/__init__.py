"""Generating tokens one after the other with a model that says how likely each is to be the next."""

from chainrule.generation.decoding import generate
from chainrule.generation.prompts import Generated

__all__ = ["Generated", "generate"]
