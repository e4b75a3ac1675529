"""Classify and segment brain tumors on MR slices: import the modules."""

import os

# TensorFlow logs a dozen lines at its start; errors reach Python as exceptions anyway
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
