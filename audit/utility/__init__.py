"""What forgetting cost: knowledge that should have stayed, and how well the model still speaks."""
