"""The agents of a run: ``wild`` and ``asking`` use our SDK, ``raw`` does without it."""
