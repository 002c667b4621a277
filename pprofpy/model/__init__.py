"""The nouns of what was recorded: data only, no reading or writing."""
