"""The same job for the Transformers Trainer with PEFT: one process, as its users write it.

Called by one_run.py and sweep.py; prints one JSON line. Takes texts and labels as loramill prepared them and the same
initial adapter, so that only the way of training differs.
"""

from __future__ import annotations

import argparse
import json
import time

STARTED = time.perf_counter()

import peft  # noqa: E402
import torch  # noqa: E402
from datasets import load_dataset  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    default_data_collator,
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="folder with train.jsonl and validation.jsonl")
    parser.add_argument("--style", choices=["padded", "dynamic", "grouped"], required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--base-dropout", action="store_true", help="keep the dropout of the frozen base")
    options = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    rows = load_dataset(
        "json", data_files={split: f"{options.data}/{split}.jsonl" for split in ("train", "validation")}
    )
    padding = "max_length" if options.style == "padded" else False
    tokens = rows.map(
        lambda batch: tokenizer(batch["text"], truncation=True, max_length=128, padding=padding),
        batched=True,
        remove_columns=["text"],
    )
    dropout = {} if options.base_dropout else {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    torch.manual_seed(options.seed)
    base = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=2, **dropout)
    lora = peft.LoraConfig(
        task_type="SEQ_CLS", r=options.rank, lora_alpha=16, target_modules=["query", "value"], lora_dropout=0.0
    )
    trainer = Trainer(
        model=peft.get_peft_model(base, lora),
        args=TrainingArguments(
            output_dir=f"{options.data}/trainer",
            per_device_train_batch_size=options.batch,
            per_device_eval_batch_size=64,
            num_train_epochs=1,
            learning_rate=options.rate,
            warmup_steps=0.05,
            train_sampling_strategy="group_by_length" if options.style == "grouped" else "random",
            bf16=options.bf16,
            use_cpu=not torch.cuda.is_available(),
            report_to=[],
            save_strategy="no",
            logging_steps=50,
            disable_tqdm=True,
            seed=options.seed,
        ),
        train_dataset=tokens["train"],
        eval_dataset=tokens["validation"],
        data_collator=default_data_collator if options.style == "padded" else DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda seen: {"accuracy": float((seen.predictions.argmax(1) == seen.label_ids).mean())},
    )
    ready = time.perf_counter()
    trainer.train()
    trained = time.perf_counter()
    metrics = trainer.evaluate()
    print(
        json.dumps(
            {
                "samples_per_second": len(tokens["train"]) / (trained - ready),
                "train_seconds": trained - ready,
                "total_seconds": time.perf_counter() - STARTED,
                "accuracy": metrics["eval_accuracy"],
            }
        )
    )


if __name__ == "__main__":
    main()
