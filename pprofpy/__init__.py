"""pprofpy: profile and trace running Python processes on Linux."""

__version__ = "0.1.0"
