"""Builds what no PyTorch wheel has."""
