"""The live page of one worker: freshness, lanes, cycles, newest titles. `upwell console`."""
