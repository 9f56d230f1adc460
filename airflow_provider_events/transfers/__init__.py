"""Transfers from databases to vendors."""
