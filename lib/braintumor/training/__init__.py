"""Training: augmentation, batches, the loop, and the record of a run."""
