"""The live path: what agents write, and what clients follow."""
