"""Say what is wrong with a data set, repair what can be repaired, and keep the result as a version.

.venv/bin/python examples/02_check_data.py reviews.csv
"""

from __future__ import annotations

import sys

from loramill.config.schema import DataConfig, ValidationRules
from loramill.data.cleaning import clean
from loramill.data.sources import load_source
from loramill.data.validator import DataValidator
from loramill.data.version_manager import DataVersionManager
from loramill.settings import Settings


def main(name: str) -> None:
    data_folder = Settings.load().data_folder
    source = load_source(DataConfig(dataset_name=name), data_folder)
    rules = ValidationRules(min_text_length=5)
    report = DataValidator(rules).validate(source.splits, found_while_reading=source.findings)
    for finding in report.findings:
        print(f"{finding.severity} {finding.code}, row {finding.row}: {finding.excerpt!r}. {finding.fix}")

    cleaned = clean(source.splits, rules)
    print(f"{len(cleaned.changes)} changes: {dict(cleaned.summary)}")
    for split, rows in cleaned.splits.items():
        version = DataVersionManager(data_folder).create(rows, source=f"{name} ({split}), cleaned").version
        print(f"{split}: {version.rows} rows; train on them with --dataset_name version:{version.id}")


if __name__ == "__main__":
    main(sys.argv[1])
