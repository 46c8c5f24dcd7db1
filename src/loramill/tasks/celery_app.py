"""The Celery app of both sides: the API publishes with it, the worker consumes with it."""

from __future__ import annotations

import logging

from celery import Celery
from celery.exceptions import OperationalError

from loramill.tasks.broker import Broker

QUEUE = "loramill"
TRAIN_TASK = "loramill.train"

log = logging.getLogger(__name__)


def create_celery(broker: Broker) -> Celery:
    """An app for one broker. Its messages are JSON and hold an experiment's id, nothing else.

    The server forgets a message when it is delivered (``ack_emulation``): it is a hint, and the reaper repeats those
    that a dead worker took along. What Kombu would keep costs a round trip before each job and one after it, and a
    message that cannot be acknowledged, as the server is away, counts as worked on for ever.
    """
    celery = Celery("loramill", broker=broker.celery_url, set_as_current=False)
    celery.conf.update(
        task_default_queue=QUEUE,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "ack_emulation": False,
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": broker.celery_url.startswith("redis:"),
        },
    )
    return celery


class Publisher:
    """Tells the workers of a job. It never fails: what was not heard is sent again by the reaper."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery

    def publish(self, experiment_id: str) -> None:
        try:
            self._celery.send_task(TRAIN_TASK, args=(experiment_id,), retry=False)
        except (OperationalError, OSError) as error:
            log.warning("The queue was not told of %s: %s", experiment_id, error)
