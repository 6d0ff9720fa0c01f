"""Scoring: walks the plan, finds every cell's ruling, and names the numbers. Statistics proper are in audit.stats."""
