"""Judges that are language models: prompts, the fence around the candidate's text, and the reading of replies."""
