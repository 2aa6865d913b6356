"""Agents that ship: a deterministic one for demos and tests, and one over pydantic-ai."""
