"""Profiles, sweeps, the execution of a run and what it will take."""
