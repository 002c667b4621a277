"""`python -m pprofpy`."""

from pprofpy.cli.main import main

main()
