"""Set-up that every test shares."""

import os

import hypothesis

# A first call compiles: that is no slow example.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, max_examples=200)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")

# Before torch is imported, here and in what is started from here. Its threads spin as they wait for
# each other: where other work shares the cores, two take ten times as long as one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["tests.servers"]
