"""Lossless reading of the languages upstream is written in, and edits by byte span."""
