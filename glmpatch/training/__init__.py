"""Runs of the patched code: the demo and what it needs."""
