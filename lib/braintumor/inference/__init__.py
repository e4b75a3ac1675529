"""Image files to predictions of the published networks, and their reports."""
