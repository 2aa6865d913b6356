"""Durable sessions for AI agents, and agents that can pay."""

__version__ = "0.1.0"
