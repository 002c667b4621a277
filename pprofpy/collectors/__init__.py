"""Sources of profiles: one module a kind. Each records a target into a Profile (or a Trace); none knows the views."""
