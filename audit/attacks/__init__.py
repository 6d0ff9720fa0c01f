"""Changes of a checkpoint's weights: from one model folder to another."""
