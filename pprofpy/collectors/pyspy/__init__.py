"""CPU profiles through py-spy: finding its program, driving it, and turning what it writes into a Profile."""
