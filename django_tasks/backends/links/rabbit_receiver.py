"""How do messages come from RabbitMQ?

What a worker asks for is pulled: a consumer is set up for exactly so many messages and ended when they are there. So no
worker holds what it did not ask for, an empty answer means that nothing is there, and the server sends at the pace of a
consumer rather than of single gets, which matters most for quorum queues. While a worker has less than it asked for, a
scout waits in each queue, a consumer for one message: that is how the next one wakes it.

One connection serves the worker's loop, its heart and its listener, behind one lock, which nobody holds while waiting
for something to arrive. A thread of its own keeps the connection's heartbeats going whatever these are doing.
"""

from __future__ import annotations

import logging
import os
import secrets
import select
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event

from amqp.exceptions import ChannelError

from django_tasks.backends.links import frames
from django_tasks.backends.links.layout import Layout, steps
from django_tasks.backends.links.link import Arrival, Kept, Receipt, Receiver
from django_tasks.backends.links.rabbit import SLIPS, RabbitConnection, concerns_a_queue
from django_tasks.backends.links.servers import Servers, explained
from django_tasks.backends.links.tables import read_properties, short_pair
from django_tasks.wire import Wire

_log = logging.getLogger("django_tasks.broker")

_MOST = 65_535
"""What the server takes for a prefetch count."""
_GLANCE = 0.1
"""Seconds between two looks at `stop` while nothing arrives."""
_LULL = 0.02
"""Seconds without a delivery after which a pull asks whether there is anything left."""
_PULL = 2.0
"""Seconds after which a pull is content with what it has: the server is overloaded."""

_REMEMBERED = 10_000
"""Consumers whose queues are remembered, for what may still be on its way to them."""

_COUNT = "x-delivery-count"
"""The header in which quorum queues count deliveries that were not acknowledged."""


class RabbitReceiver(Receiver):
    """Gets messages over a connection that is opened when it is first needed, and again after it was lost."""

    def __init__(self, servers: Servers, layout: Layout) -> None:
        self.servers = servers
        self.layout = layout
        self._lock = threading.RLock()
        self._connection: RabbitConnection | None = None
        self._channel = ""
        """Names the channel in receipts; another one after each loss."""
        self._outstanding: dict[int, None] = {}
        """The numbers of what is unacknowledged, in their order."""
        self._waiting: defaultdict[str, deque[tuple[float, Arrival]]] = defaultdict(deque)
        self._consumers: dict[str, str] = {}
        """The queue of each consumer."""
        self._scouts: dict[str, str] = {}
        """The scout that waits in each queue."""
        self._kept = Kept()
        self._names = 0
        self._turn = 0
        self._hungry = True
        self._news = False
        self._beating = Event()

    def fetch(self, queues: Sequence[str], limit: int) -> list[Arrival]:
        with self._using() as connection:
            self._take_in(connection)
            self._turn += 1
            first = self._turn % len(queues)
            order = [*queues[first:], *queues[:first]]
            fetched = self._kept.take(queues, limit)
            failed = self._pull_all(connection, order, limit - len(fetched))
            self._sort()
            fetched += self._taken(order, limit - len(fetched))
            self._news = False
            self._hungry = len(fetched) < limit
            if not self._hungry:
                self._end_scouts(connection)
            if failed is not None and not fetched:
                raise failed
            return fetched

    def _pull_all(self, connection: RabbitConnection, queues: Sequence[str], limit: int) -> ChannelError | None:
        """Pull from one queue after the other; return what went wrong with one, the others being served."""
        failed = None
        for queue in queues:
            wanted = limit - sum(len(self._waiting[name]) for name in queues)
            if wanted <= 0:
                break
            try:
                ready = connection.count(self.layout.queue(queue))
            except ChannelError as error:
                _log.warning("A queue cannot be used", extra={"queue": queue, "error": explained(error)})
                failed = error
            else:
                if ready:
                    self._pull(connection, queue, min(wanted, ready, _MOST))
        return failed

    def _pull(self, connection: RabbitConnection, queue: str, number: int) -> None:
        """Have up to so many messages delivered; what others took meanwhile is not waited for."""
        consumer = self._consumer(connection, queue)
        connection.write(frames.consume(connection.number, self.layout.name(queue), consumer, number))
        give_up = time.monotonic() + _PULL
        missing, idle = number, 0
        while missing > 0 and idle < 2 and time.monotonic() < give_up:
            if not connection.pump(_LULL) and not connection.count(self.layout.queue(queue)):
                idle += 1
            missing -= self._sort().count(consumer)
        self._end(connection, consumer)
        if missing > 0:
            # One more question on the same channel: what is on its way comes before the answer.
            connection.channel.basic_qos(0, 1, False)
            self._sort()

    def _taken(self, queues: Sequence[str], limit: int) -> list[Arrival]:
        fetched: list[Arrival] = []
        for queue in queues:
            waiting = self._waiting[queue]
            while waiting and len(fetched) < limit:
                fetched.append(waiting.popleft()[1])
        return fetched

    def held(self, receipts: Iterable[Receipt]) -> set[Receipt]:
        with self._using() as connection:
            # If the server has closed the connection, this is where it shows.
            self._take_in(connection)
            return {one for one in receipts if one[0] == self._channel and one[1] in self._outstanding}

    def ack(self, receipts: Sequence[Receipt]) -> None:
        with self._using() as connection:
            done = {number for channel, number in receipts if channel == self._channel}
            upto = 0
            for number in self._outstanding:
                if number not in done:
                    break
                upto = number
            parts = [frames.ack(connection.number, number, multiple=False) for number in done if number > upto]
            if upto:
                parts.append(frames.ack(connection.number, upto, multiple=True))
            if parts:
                connection.write(b"".join(parts))
            for number in done:
                self._outstanding.pop(number, None)

    def requeue(self, receipts: Sequence[Receipt]) -> None:
        with self._using() as connection:
            back = [number for channel, number in receipts if channel == self._channel]
            connection.write(b"".join(frames.requeue(connection.number, number) for number in back))
            for number in back:
                self._outstanding.pop(number, None)

    def wait(self, queues: Sequence[str], timeout: float, stop: Event) -> bool:
        deadline = time.monotonic() + timeout
        while True:
            with self._using() as connection:
                if self._hungry:
                    self._send_scouts(connection, queues)
                self._take_in(connection)
                if stop.is_set():
                    return False
                if self._news or self._kept.due:
                    self._news = False
                    return True
                socket = connection.fileno()
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            # Another thread may close it meanwhile: then the next look finds a new connection.
            with suppress(OSError, ValueError):
                ready = select.poll()
                ready.register(socket, select.POLLIN)
                ready.poll(min(left, _GLANCE) * 1000)

    def keep(self, arrival: Arrival, seconds: float) -> None:
        with self._lock:
            if arrival.receipt[0] == self._channel:
                self._kept.add(arrival, seconds)

    def pause(self) -> None:
        with self._lock:
            self._hungry = False
            idle = self._connection is None or not self._scouts
        if idle:
            return
        with self._using() as connection:
            self._end_scouts(connection)
            # One more question on the same channel: what is on its way comes before the answer.
            connection.channel.basic_qos(0, 1, False)
            self._sort()

    def stale(self, age: float) -> list[Arrival]:
        before = time.monotonic() - age
        with self._lock:
            found = []
            for waiting in self._waiting.values():
                while waiting and waiting[0][0] < before:
                    found.append(waiting.popleft()[1])
            if found and self._connection is not None:
                # Whoever had no use for these has none for more, until the next fetch says otherwise.
                self._hungry = False
                self._end_scouts(self._connection)
            return found

    def ready(self, queue: str) -> int:
        with self._using() as connection:
            count = connection.count(self.layout.queue(queue), create=False) or 0
            return count + len(self._waiting[queue])

    def purge(self, queue: str) -> int:
        with self._using() as connection:
            self._end_scouts(connection)
            mine = [arrival.receipt for _, arrival in self._waiting.pop(queue, ())]
            self.ack(mine)
            names = [self.layout.name(queue), *(self.layout.waiting(queue, step).name for step in steps())]
            return len(mine) + sum(map(connection.purge, names))

    def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            self._forget()
            if connection is not None:
                connection.close()

    # Scouts

    def _send_scouts(self, connection: RabbitConnection, queues: Sequence[str]) -> None:
        for queue in queues:
            if queue in self._scouts or self._waiting[queue]:
                continue
            # What is wrong with one queue is for `fetch` to tell.
            with suppress(ChannelError):
                connection.count(self.layout.queue(queue))
                scout = self._scouts[queue] = self._consumer(connection, queue)
                connection.write(frames.consume(connection.number, self.layout.name(queue), scout, 1))

    def _cancelled(self, consumer: str) -> None:
        """Take note that a queue was deleted under a consumer; a scout will find it made again."""
        queue = self._consumers.get(consumer, "")
        if self._scouts.get(queue) == consumer:
            del self._scouts[queue]
        if self._connection is not None:
            self._connection.deleted(self.layout.name(queue))
        self._news = True

    def _end_scouts(self, connection: RabbitConnection) -> None:
        if self._scouts:
            scouts, self._scouts = self._scouts, {}
            for consumer in scouts.values():
                self._end(connection, consumer)

    def _consumer(self, connection: RabbitConnection, queue: str) -> str:
        """Return the name of a new consumer. Those of a long time ago get nothing any more."""
        self._names += 1
        name = f"c{self._names}"
        self._consumers[name] = queue
        connection.channel.cancel_callbacks[name] = self._cancelled
        if len(self._consumers) > _REMEMBERED:
            oldest = next(iter(self._consumers))
            its_queue = self._consumers.pop(oldest)
            if self._scouts.get(its_queue) == oldest:
                self._consumers[oldest] = its_queue
            else:
                connection.channel.cancel_callbacks.pop(oldest, None)
        return name

    def _end(self, connection: RabbitConnection, consumer: str) -> None:
        connection.write(frames.cancel(connection.number, consumer))

    # What came

    def _take_in(self, connection: RabbitConnection) -> None:
        """Take in all that has been received; also what py-amqp has read, while it waited for an answer."""
        while connection.pump(0.0):
            pass
        self._sort()

    def _sort(self) -> list[str]:
        """Put what came to its queue; return the consumers that it came to, one for each message."""
        if self._connection is None:
            return []
        contents = self._connection.inbox.contents
        consumers = []
        now = time.monotonic()
        while contents:
            content = contents.popleft()
            queue = self._consumers.get(content.consumer)
            if queue is None:
                self._connection.write(frames.requeue(self._connection.number, content.tag))
                continue
            if self._scouts.get(queue) == content.consumer:
                del self._scouts[queue]
                self._end(self._connection, content.consumer)
            self._outstanding[content.tag] = None
            self._waiting[queue].append((now, self._arrival(queue, content)))
            self._news = True
            consumers.append(content.consumer)
        return consumers

    def _arrival(self, queue: str, content: frames.Content) -> Arrival:
        headers, properties = read_properties(content.header, frames.PROPERTIES)
        counted = headers.pop(_COUNT, None)
        exact = isinstance(counted, int)
        # Most come through none.
        exchange, key = short_pair(content.way) if content.way[0] else ("", "")
        return Arrival(
            queue=queue,
            receipt=(self._channel, content.tag),
            wire=Wire(headers, properties, content.body),
            losses=max(0, counted) if isinstance(counted, int) else int(content.redelivered),
            exact=exact or not content.redelivered,
            exchange=exchange,
            key=key,
        )

    # The connection

    @contextmanager
    def _using(self) -> Iterator[RabbitConnection]:
        """Give the connection to one thread; whatever goes wrong with it ends it, and everything it held is lost."""
        with self._lock, self.servers.telling(SLIPS):
            connection = self._connection or self._connect()
            try:
                yield connection
            except Exception as error:
                if not concerns_a_queue(error):
                    self._drop(connection)
                raise

    def _connect(self) -> RabbitConnection:
        heartbeat = self.layout.options.heartbeat
        connection = RabbitConnection(self.servers, "worker", {"heartbeat": heartbeat})
        self._forget()
        self._channel = self.layout.worker = f"{os.getpid()}.{secrets.token_hex(8)}"
        self._connection = connection
        self._beating = Event()
        threading.Thread(
            target=self._beat, args=(connection, self._beating, heartbeat / 4), name="amqp-heartbeat", daemon=True
        ).start()
        return connection

    def _beat(self, connection: RabbitConnection, ended: Event, interval: float) -> None:
        while not ended.wait(interval):
            with self._lock:
                if self._connection is not connection:
                    return
                try:
                    self._take_in(connection)
                    connection.tick()
                except Exception as error:  # noqa: BLE001  # told to whoever uses the broker next
                    _log.warning("The connection was lost", extra={"error": explained(error)})
                    self._drop(connection)
                    return

    def _drop(self, connection: RabbitConnection) -> None:
        self._connection = None
        self._forget()
        connection.abandon()

    def _forget(self) -> None:
        self._beating.set()
        self._channel = ""
        self._hungry = self._news = True
        for known in (self._outstanding, self._waiting, self._consumers, self._scouts, self._kept):
            known.clear()
