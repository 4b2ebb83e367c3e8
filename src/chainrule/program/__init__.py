"""The flat Program: built by tracing, verified, rewritten by passes, printed, run by an engine."""
