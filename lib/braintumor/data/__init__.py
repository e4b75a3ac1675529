"""Slices: downloaded, generated, read in their formats, prepared, split into folds."""
