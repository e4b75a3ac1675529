"""The page of the app, and its server."""
