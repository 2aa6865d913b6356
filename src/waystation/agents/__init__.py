"""Agents included in the package: deterministic ones for demos and tests, and one over pydantic-ai."""
