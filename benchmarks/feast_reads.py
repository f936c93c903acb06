"""Feast's online read of the same vectors, over the same Redis: the peer of bench_serve.py.

    python -m venv feast && feast/bin/pip install "feast[redis]==0.67.0"
    make bench-serve ARGS="--feast feast/bin/python"

It stands alone, since Feast has an environment of its own. Prints one line of JSON: the seconds of
each read of `asked` titles, in the order in which they were made.
"""

import json
import sys
import tempfile
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

warnings.simplefilter("ignore")

import feast  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from feast.types import Array, Float32  # noqa: E402

SETTINGS = """
project: bench
registry: {folder}/registry.db
provider: local
online_store:
  type: redis
  connection_string: "{address}"
entity_key_serialization_version: 3
"""


def main(address: str, titles: int, dim: int, reads: int, asked: int) -> None:
    rng = np.random.default_rng(0)
    now = datetime.now(UTC)
    ids = [f"m{row}" for row in range(titles)]
    frame = pd.DataFrame(
        {
            "title": ids,
            "vec": list(rng.standard_normal((titles, dim), dtype=np.float32)),
            "event_timestamp": now,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "feature_store.yaml").write_text(
            SETTINGS.format(folder=folder, address=address)
        )
        frame.head(1).to_parquet(f"{folder}/source.parquet")
        store = feast.FeatureStore(repo_path=folder)
        title = feast.Entity(name="title", join_keys=["title"], value_type=feast.ValueType.STRING)
        view = feast.FeatureView(
            name="embeddings",
            entities=[title],
            ttl=timedelta(days=1),
            schema=[feast.Field(name="vec", dtype=Array(Float32))],
            source=feast.FileSource(
                path=f"{folder}/source.parquet", timestamp_field="event_timestamp"
            ),
        )
        store.apply([title, view])
        for start in range(0, titles, 5_000):
            store.write_to_online_store("embeddings", frame.iloc[start : start + 5_000])
        seconds = []
        for _ in range(reads):
            rows = [{"title": ids[row]} for row in rng.integers(titles, size=asked).tolist()]
            start_s = time.perf_counter()
            answer = store.get_online_features(features=["embeddings:vec"], entity_rows=rows)
            matrix = np.array(answer.to_dict()["vec"], np.float32)
            seconds.append(time.perf_counter() - start_s)
            assert matrix.shape == (asked, dim)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:6]))
