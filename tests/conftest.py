"""Set-up that every test shares."""

import os

import hypothesis

# A first call compiles: that is no slow example.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, max_examples=200)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")

pytest_plugins = ["tests.servers"]
