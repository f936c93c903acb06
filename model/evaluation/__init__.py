"""What embeddings are worth: every arm, predicted first and learned after. `upwell evaluate`."""
