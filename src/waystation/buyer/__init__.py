"""Paying and buying for agents: what is spent, where, and what became of it."""
