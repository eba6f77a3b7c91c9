"""Many machines through Ray Data: one actor for each accelerator, each of which does what one machine does.

A piece (an archive, a row group, some files) goes to an actor as a description, and the actor reads, decodes, scores
and writes it, so no pixels cross the network. Ray gives a lost actor's pieces to another. What that one writes has the
same names, since the images of a part follow from the piece alone: a retry replaces, and doubles nothing.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aedr_jax.errors import RunError, SourceError
from aedr_jax.inputs.ids import Done
from aedr_jax.inputs.sources import Source, until_failure
from aedr_jax.interruption import kept_handlers
from aedr_jax.scoring.job import Finished, Work, Worker, tally
from aedr_jax.scoring.made import Made
from aedr_jax.scoring.rows import Row
from aedr_jax.scoring.store import Fresh, Parts

__all__ = ["Cluster", "do_piece"]

ACCELERATORS = ("GPU", "TPU")


class Cluster:
    """A connection to a Ray cluster, and what each actor takes of it.

    Args:
      address: of the cluster; None: the one that this process or machine is part of, or else a new one here.
      resources: of one actor; None: a GPU or a TPU chip if the cluster has any, or else a whole machine's CPUs.

    Raises:
      SourceError: without Ray, or where the cluster lacks the resources.
    """

    def __init__(self, address: str | None = None, resources: Mapping[str, float] | None = None) -> None:
        try:
            import ray
        except ImportError:
            raise SourceError('engine ray: pip install "aedr-jax[ray]"') from None
        if wrong := {name: amount for name, amount in (resources or {}).items() if not amount > 0}:
            raise SourceError(f"Ray: resources {wrong}: expected amounts above 0")
        self.ray, self.connected = ray, False
        if not ray.is_initialized():
            try:
                with kept_handlers():
                    ray.init(address=address)
            except (ConnectionError, ValueError) as error:
                raise SourceError(f"Ray: {error}") from error
            self.connected = True
        there = ray.cluster_resources()
        machines = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
        cpus = min(filter(None, machines), default=1.0)  # a head that is to do no work has none
        chosen = next(({name: 1.0} for name in ACCELERATORS if there.get(name)), {"CPU": cpus})
        self.resources = dict(resources or chosen)
        self.actors = int(min(there.get(name, 0) / amount for name, amount in self.resources.items()))
        if self.actors < 1:
            self.close()
            raise SourceError(f"Ray: an actor takes {self.resources}, and the cluster has {there}")

    def close(self) -> None:
        """Leave the cluster, if this connected to it."""
        if self.connected:
            self.ray.shutdown()

    def options(self) -> dict[str, Any]:
        """What an actor takes, in Ray's words."""
        others = {name: amount for name, amount in self.resources.items() if name not in ("CPU", "GPU")}
        return {
            "num_cpus": self.resources.get("CPU", 1),
            "num_gpus": self.resources.get("GPU", 0),
            "resources": others or None,
        }

    def settings(self, work: Work) -> tuple[dict[str, Any], Made]:
        """`Worker.settings` and `Made.now`, found where the models will run: this process takes no accelerator."""
        task = self.ray.remote(max_calls=1, **self.options())(_settings)
        return self.ray.get(task.remote(work))

    def do(
        self, source: Source, work: Work, parts: Parts, done: Done, part_images: int, advance: Callable[[int], None]
    ) -> Finished:
        """Do the work on all pieces of a source.

        Raises:
          RunError: at the end, for what could not be read, or ids that came twice; at once, where a part cannot be
            written.
        """
        failures: list[Exception] = []  # a folder that cannot be read, say: the rest is scored
        pieces = [{"piece": piece} for piece in until_failure(source.pieces(part_images), failures)]
        if not pieces:
            raise failures[0] if failures else SourceError("no image there")
        data = self.ray.data
        data.DataContext.get_current().enable_progress_bars = False
        scored = data.from_items(pieces, override_num_blocks=len(pieces)).map_batches(
            _Actor,
            fn_constructor_args=(work, parts, self.ray.put(done), part_images),
            batch_size=1,
            compute=data.ActorPoolStrategy(min_size=1, max_size=self.actors),
            **self.options(),
        )
        totals, problems = Finished(0, 0, 0), [str(error) for error in failures]
        passed = Counter[str]()
        source.tell_passed_over(passed)
        for row in scored.iter_rows():
            if row["fatal"]:
                raise RunError(row["problem"])
            totals = totals.plus(Finished(*(row[name] for name in Finished._fields)))
            advance(row["scored"] + row["skipped"])
            passed.update(json.loads(row["passed_over"]))
            if row["problem"]:
                problems.append(row["problem"])
        if problems:
            raise RunError("; ".join(sorted(problems)))
        return totals


def _settings(work: Work) -> tuple[dict[str, Any], Made]:
    return work.worker().settings(), Made.now()


class _Actor:
    """Loads the models once; every piece of the same image sizes reuses what it compiled."""

    def __init__(self, work: Work, parts: Parts, done: Any, part_images: int) -> None:
        import ray

        self.parts, self.part_images = parts, part_images
        self.done: Done = ray.get(done) if isinstance(done, ray.ObjectRef) else done
        self.worker = work.worker()

    def __call__(self, batch: Mapping[str, Iterable[Source]]) -> dict[str, list[Any]]:
        (piece,) = batch["piece"]
        finished, problem, fatal = Finished(0, 0, 0), "", False
        try:
            finished, problem = do_piece(piece, self.worker, self.parts, self.done, self.part_images)
        except RunError as error:  # a full disk: other pieces would fare no better
            problem, fatal = str(error), True
        return {
            **{name: [value] for name, value in finished._asdict().items()},
            "passed_over": [json.dumps(piece.passed_over())],
            "problem": [problem],
            "fatal": [fatal],
        }


def do_piece(piece: Source, worker: Worker, parts: Parts, done: Done, part_images: int) -> tuple[Finished, str]:
    """Do a piece, a part for each `part_images` of its images; what was done, and what could not be read."""
    fresh = Fresh(piece, done)
    items = iter(fresh)
    finished = Finished(0, 0, 0)
    problem = ""
    more = True
    while more and not problem:
        rows: list[Row] = []
        try:
            for batch in worker.rows(itertools.islice(items, part_images)):
                rows += batch
        except RunError as error:  # of the source: other pieces go on
            problem = str(error)
        except BaseException:  # what came before it is kept, also where Ray ends the actor
            parts.write(worker.kept(rows))
            raise
        found = tally(rows, len(worker.models))
        finished = finished.plus(found)
        parts.write(worker.kept(rows))
        more = found.scored == part_images
    if fresh.doubles:
        problem = "; ".join(filter(None, (problem, fresh.complaint())))
    return finished._replace(skipped=fresh.skipped), problem
