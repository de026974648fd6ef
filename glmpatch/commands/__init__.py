"""One module per command: options in, one call, render, exit code."""
