"""From what the kernel walked to Python frames."""
