"""The systems that ours is measured against, one module each."""
