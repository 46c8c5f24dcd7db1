"""What `make predict-*` sends to the inference service on this machine: `health`, `text`, `positive` or `negative`.

The text comes in the variable PREDICT_TEXT; the service is found as settings say (INFERENCE_PORT, and
LORAMILL_INFERENCE_KEY where it asks for a key).
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import httpx

from loramill.errors import LoramillError
from loramill.inference.access import KEY_FILE
from loramill.settings import Settings

SAMPLES = {
    "positive": {
        "English": "A warm, funny film with a cast that never puts a foot wrong.",
        "Chinese": "房间干净，服务热情，下次还会再来。",
    },
    "negative": {
        "English": "A dull, endless mess that wastes everybody's time.",
        "Chinese": "房间又脏又吵，服务态度很差，再也不会来了。",
    },
}
"""Texts that anybody would label alike, in the languages of the sample models."""


def main(asked: str) -> int:
    settings = Settings.load()
    key = known_key(settings)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    address = f"http://127.0.0.1:{settings.inference_port}"
    try:
        with httpx.Client(base_url=address, headers=headers, timeout=60, trust_env=False) as client:
            response = ask(client, asked)
            answer = response.json()
    except (httpx.TransportError, ValueError) as error:
        print(f"No inference service answers at {address} ({error}). Start it: make serve", file=sys.stderr)
        return 1
    print(json.dumps(answer, indent=2, ensure_ascii=False))
    return 0 if response.is_success else 1


def known_key(settings: Settings) -> str | None:
    """The key of the environment, or the one that a service open to other machines made for itself."""
    if settings.inference_key:
        return settings.inference_key.get_secret_value()
    kept = settings.secrets_folder / KEY_FILE
    return kept.read_text(encoding="utf-8").strip() if kept.is_file() else None


def ask(client: httpx.Client, asked: str) -> httpx.Response:
    health = client.get("/health")
    if asked == "health":
        return health
    text = os.environ.get("PREDICT_TEXT", "") if asked == "text" else sample(asked, health.json())
    print(f"POST /predict: {text}", file=sys.stderr)
    return client.post("/predict", json={"text": text})


def sample(asked: str, health: dict[str, Any]) -> str:
    texts = SAMPLES[asked]
    return texts.get(health.get("language") or "English", texts["English"])


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except LoramillError as error:
        sys.exit(str(error))
