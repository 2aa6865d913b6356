"""The API's way to Temporal: calls bounded in time, every failure a problem that says what to do."""
