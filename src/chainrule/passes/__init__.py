"""Passes: each takes a Program and returns one with the same meaning. `pipeline.PIPELINE` is their order."""
