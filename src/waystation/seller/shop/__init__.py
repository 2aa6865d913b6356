"""A shop that agents buy from over ACP."""
