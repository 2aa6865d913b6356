"""The shapes of the Agentic Commerce Protocol, one file for each part of it.

Import them from ``waystation.protocols.acp``.
"""
