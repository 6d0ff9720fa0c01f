"""Statistics of an audit: pure functions over facts, numpy and scipy only."""
