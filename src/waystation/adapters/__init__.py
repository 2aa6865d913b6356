"""Other people's agent frameworks as session agents."""
