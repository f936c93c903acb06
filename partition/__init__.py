"""Min-cut parts of the co-play graph: which subgraph one training step sees (HASP)."""
