"""Answers about an image: the published networks, what is unlike their slices, the report."""
