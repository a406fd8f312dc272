"""Processes in which artifacts are loaded: one that is measured (`child`), and one that answers and may crash (`apart`)."""
