"""Reference trainer of JensUn, a baseline, and the model organism. Knows `audit.types` and `audit.tasks` only."""
