"""Metrics, scores of a run, and masks."""
