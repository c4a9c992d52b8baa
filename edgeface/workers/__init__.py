"""Runs independent tasks in parallel, in processes here or on the machines of a Ray cluster.

    with open_workers(processes=4) as workers:                      # or open_workers("auto")
        results = workers.run(train_candidate, items, journal)

A task is a top-level function of one argument in an importable module; argument and result are
JSON-ready data or bytes. A worker that dies is replaced and its item tried again, so a task may run
more than once, but each item is reported as finished once. In a process of its own, each task has
one processor to itself; OMP_NUM_THREADS tells the usual libraries so.

On a cluster:

- This machine must be part of it: ``ray start --address=HOST:6379 --num-cpus=0`` joins without
  giving processors.
- Every machine needs the same versions of Python, Ray and the packages that the tasks import. Our
  own code need not be there: a copy of the package ``edgeface`` and, from a checkout, of the
  packages beside it is sent along and comes before anything installed, so all run the code of the
  caller.
- Tasks start in a folder of Ray's: a path in an item has to be absolute, and on storage that all
  machines share.
- A machine declares the device that it has: ``ray start --address=HOST:6379 --num-cpus=1
  --resources='{"pi": 1}'``. With one processor there, no other task of ours runs while it measures.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from edgeface.errors import OptionError
from edgeface.workers.base import Finished, Here, Task, Workers

__all__ = ["Finished", "Task", "Workers", "open_workers"]


@contextmanager
def open_workers(
    address: str | None = None, processes: int = 1, resource: str | None = None
) -> Iterator[Workers]:
    """Open workers, and end their processes or connection with the block.

    address: HOST:PORT of a Ray cluster, or ``auto`` for the one that this machine is in; None: this
    machine. processes: how many tasks run at once here; 1 runs them in this process, more in new
    processes. A cluster runs as many as it has processors. resource: name of something that a task
    needs to itself, such as a device: on a cluster, a machine must have been started with it; here,
    tasks run one at a time. Nested blocks share the connection.

    Raises OptionError if ``processes`` is below 1, MissingExtraError without Ray, WorkerError if
    the cluster cannot be joined or none of its machines has ``resource``.
    """
    if processes < 1:
        raise OptionError(f"processes must be 1 or more, got {processes}")
    if address is not None:
        from edgeface.workers.cluster import Cluster, connected

        with connected(address) as ray:
            yield Cluster(ray, resource)
    elif processes == 1 or resource is not None:
        yield Here()
    else:
        from edgeface.workers.processes import Processes

        with closing(Processes(processes)) as workers:
            yield workers
