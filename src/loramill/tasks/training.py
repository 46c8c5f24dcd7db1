"""What a message does: it makes a worker look at one experiment. The experiment's row decides about the rest."""

from __future__ import annotations

from celery import Celery

from loramill.experiments.folder import is_plain_name
from loramill.jobs.supervise import Supervisor
from loramill.tasks.celery_app import TRAIN_TASK


def register_training(celery: Celery, supervisor: Supervisor) -> None:
    """Have the app's workers do jobs."""

    def train(experiment_id: str) -> None:
        if is_plain_name(experiment_id):
            supervisor.do_next(experiment_id)

    celery.task(train, name=TRAIN_TASK)
