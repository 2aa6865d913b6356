"""Tries implementations of the agents' socket, of either side, against the list in docs/ingest.md."""
