"""Connections through which entries can be looked up."""
