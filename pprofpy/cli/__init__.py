"""The commands, one module each; `main.py` has the list and the one error funnel."""
