"""Loops as nodes: `scan`."""

from chainrule.control import loop
from chainrule.control.tracing import scan

LOOPS = (loop.scan,)  # the primitives of this floor

__all__ = ["LOOPS", "scan"]
