"""Cases in parallel processes, each with one thread; what comes back is the same whatever the number of processes."""

import concurrent.futures
import contextlib
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edge_agent.contract.errors import ForewarnError
from trainer.benchmark.cases import Case, Contender, Plan, Suite
from trainer.benchmark.mistakes import Mistakes, mistakes_of
from trainer.progress import Progress

CHILD_ENVIRONMENT = {
    **dict.fromkeys(
        (
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "MKL_NUM_THREADS",
            "TF_NUM_INTRAOP_THREADS",
            "TF_NUM_INTEROP_THREADS",
        ),
        "1",
    ),
    # The models are small, and many processes would fight for one GPU.
    "CUDA_VISIBLE_DEVICES": "",
}
WAKE_SECONDS = 0.5


@dataclass(frozen=True)
class Result:
    """What one contender made of one case.

    Attributes:
        contender, case: names.
        seed: of the run.
        tally: see `Suite.tally`.
        mistakes: for people.
    """

    contender: str
    case: str
    seed: int
    tally: Any
    mistakes: Mistakes


@dataclass(frozen=True)
class _Task:
    suite: Suite
    plan: Plan
    seed: int
    contenders: tuple[Contender, ...]

    def run(self) -> list[Result]:
        """Make the case and let every contender judge it.

        Raises:
            ForewarnError: of the case, by its name.
        """
        try:
            case = self.plan.make(self.seed)
            return [self._result(case, one) for one in self.contenders]
        except ForewarnError as error:
            raise type(error)(f"{self.plan.name}: {error}") from error

    def _result(self, case: Case, contender: Contender) -> Result:
        verdict = contender.judge(case, self.seed)
        tally = self.suite.tally(case, verdict)
        return Result(contender.name, case.name, self.seed, tally, mistakes_of(case, verdict))


def run_suite(
    suite: Suite,
    plans: Sequence[Plan],
    contenders: Sequence[Contender],
    seeds: int,
    jobs: int,
    progress: Progress,
) -> list[Result]:
    """Let every contender judge every case with every seed, in the order of contenders, seeds and plans.

    A contender that draws nothing judges recorded cases once.

    Raises:
        ForewarnError: of the first case that failed; no further one is begun.
    """
    tasks = []
    for seed in range(seeds):
        for plan in plans:
            chosen = tuple(
                one for one in contenders if one.seeded or suite.simulated or plan.drawn or seed == 0
            )
            tasks += [_Task(suite, plan, seed, chosen)] if chosen else []
    progress.stage(f"benchmark {suite.name}", len(tasks))
    done: list[list[Result]] = []
    for results in _results(tasks, min(jobs, len(tasks))):
        done.append(results)
        progress.advance(1, results[0].case)
    found = [result for results in done for result in results]
    names = [one.name for one in contenders]
    order = {plan.name: number for number, plan in enumerate(plans)}
    return sorted(found, key=lambda one: (names.index(one.contender), one.seed, order[one.case]))


def _results(tasks: Sequence[_Task], jobs: int) -> Iterator[list[Result]]:
    """Yield results as they come."""
    if jobs <= 1:
        yield from (task.run() for task in tasks)
        return
    others = set(multiprocessing.active_children())
    with _processes(tasks, jobs) as pool:
        waiting = {pool.submit(task.run) for task in tasks}
        try:
            while waiting:
                # Without a limit a key press would be noticed only when a case is done.
                done, waiting = concurrent.futures.wait(
                    waiting, WAKE_SECONDS, concurrent.futures.FIRST_COMPLETED
                )
                yield from (one.result() for one in done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # A case can take minutes, for which nobody waits who has seen an error or pressed a key.
            for child in set(multiprocessing.active_children()) - others:
                child.terminate()
            raise


@contextlib.contextmanager
def _processes(tasks: Sequence[_Task], jobs: int) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """Open processes that share one import of what the contenders need, TensorFlow among it."""
    before = {name: os.environ.get(name) for name in CHILD_ENVIRONMENT}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(sorted({type(one).__module__ for one in tasks[0].contenders}))
    os.environ.update(CHILD_ENVIRONMENT)
    try:
        with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context) as pool:
            yield pool
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
