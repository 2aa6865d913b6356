"""The way to Temporal: connection, encryption, payloads, and the names that processes agree on."""
