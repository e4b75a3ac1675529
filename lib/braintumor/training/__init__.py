"""Training: batches, the run of a fold, and the record of where its numbers come from."""
