"""What the notebooks of the brain tumor study share. Import the modules, there is nothing here."""

import os

# TensorFlow greets with a dozen lines on standard error; its errors reach Python as exceptions anyway.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
