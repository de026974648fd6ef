"""Patches as data, transforms as code, and the plan that joins them."""
