from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from loramill.tasks.broker import EmbeddedBroker
from loramill.tasks.celery_app import QUEUE, Publisher, create_celery


def test_a_message_that_cannot_be_acknowledged_does_not_block_the_next(tmp_path: Path) -> None:
    """A worker that thought so waited for ever after the queue had died while it worked."""
    broker = EmbeddedBroker(tmp_path / "queue")
    with broker.in_use():
        celery = create_celery(broker)
        Publisher(celery).publish("job")
        received: list[Any] = []
        with celery.connection_for_read() as connection, connection.channel() as channel:
            channel.basic_qos(0, 1, False)
            with celery.amqp.TaskConsumer(channel, on_message=received.append):
                connection.drain_events(timeout=10)
            assert not channel.qos.can_consume(), "one at a time"
            assert not broker.client.keys("unacked*"), "a message is a hint: the server keeps none that was delivered"
            pid = broker.server_pid()
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            received[0].ack_log_error(_NoLog(), (OSError, *connection.connection_errors))
            assert channel.qos.can_consume()
        broker.ensure_running()
        assert broker.client.llen(QUEUE) == 0


class _NoLog:
    def critical(self, *message: object, **options: object) -> None: ...
