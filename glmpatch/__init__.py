"""Make the official ChatGLM-6B fine-tuning code run on Intel Xeon CPUs."""

__version__ = "0.1.0"
