"""Views of profiles: one module each, in two steps: `build` computes plain rows, `render` makes them look good."""
