"""The agents of a run: ``wild`` uses our SDK, ``raw`` speaks to Temporal and the agents' socket by itself."""
