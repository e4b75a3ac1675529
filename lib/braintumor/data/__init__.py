"""Slices: downloaded, drawn, read in their formats, prepared, split into folds."""
