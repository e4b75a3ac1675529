"""Figures, the drawing of a network, the slice explorer."""
