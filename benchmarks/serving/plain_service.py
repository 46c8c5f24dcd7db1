"""The service that loramill is compared with: FastAPI around a Transformers model, as most people write it."""

from __future__ import annotations

import argparse
import time

import torch
import uvicorn
from fastapi import FastAPI
from peft import PeftModel
from pydantic import BaseModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer


class Request(BaseModel):
    text: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", required=True)
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--merged", action="store_true")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.base)
    model = PeftModel.from_pretrained(
        AutoModelForSequenceClassification.from_pretrained(options.base, num_labels=2), options.adapter
    )
    if options.merged:
        model = model.merge_and_unload()
    model.eval()
    app = FastAPI()

    @app.post("/predict")
    def predict(request: Request) -> dict[str, object]:
        start = time.perf_counter()
        inputs = tokenizer(request.text, return_tensors="pt", truncation=True, max_length=128)
        with torch.no_grad():
            probabilities = torch.softmax(model(**inputs).logits, dim=-1)[0]
        label = int(probabilities.argmax())
        latency_ms = (time.perf_counter() - start) * 1000
        return {"label": label, "probability": float(probabilities[label]), "latency_ms": latency_ms}

    uvicorn.run(app, port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
