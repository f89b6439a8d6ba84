"""How many tasks a second go in, and how many come out? A task that does nothing, two processes that run it."""

from __future__ import annotations

from benchmarks.bench import Bench, Benchmark
from benchmarks.figures import Reading
from benchmarks.place import PLACES

ONE_BY_ONE = 1_000
"""So many tasks are enqueued one by one, or all of them where there is no other way."""


def measure(bench: Bench, scale: float) -> list[Reading]:
    """Enqueue first, then drain: from the first task's run until the system has written down that all are done."""
    tasks = max(100, round(bench.header.tasks * scale))
    single = min(tasks // 2, max(50, round(ONE_BY_ONE * scale))) if bench.header.bulk else tasks
    rate = single / bench.ask("enqueue", single).seconds
    readings = [Reading("enqueue one by one", rate, "/s", "more")]
    if bench.header.bulk:
        rate = (tasks - single) / bench.ask("bulk", tasks - single).seconds
        readings.append(Reading("enqueue 500 at once", rate, "/s", "more"))
    workers = bench.start_workers()
    first = bench.until_marks(1, workers)
    bench.until_marks(tasks, workers)
    # Where nothing can be asked, the run of the last task is the end.
    last = bench.until_finished(workers)
    bench.stop(workers)
    return [*readings, Reading("drain", tasks / (last - first), "/s", "more")]


BENCHMARK = Benchmark("throughput", "tasks a second, in and out", measure, places=tuple(PLACES), peers=True)
