"""The main job on real data, watched from outside: `upwell demo`."""
