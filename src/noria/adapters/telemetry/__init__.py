"""Traces and metrics for others, made from the log."""
