"""Jobs on Ray, with a Ray made of plain objects: what it is asked for, and what a signal and a dead worker cost."""

import sys
from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from lora_repro import interrupt
from lora_repro.config.compose import compose
from lora_repro.errors import RunInterruptedError
from lora_repro.sweep import on_ray

Task = dict[str, Any]
"""A job: its number, and how it ends."""


class RayError(Exception):
    """What Ray raises for a task whose worker died."""


class TaskCancelledError(RayError):
    """What Ray raises for a task that was cancelled before it began."""


class FakeRay(ModuleType):
    """Ray as far as OnRay uses it: each look ends one more task."""

    def __init__(self, ends: Sequence[Callable[[], object]]) -> None:
        super().__init__("ray")
        self.ends, self.tasks = ends, list[int]()
        self.settings: dict[str, Any] = {}
        self.cancelled = set[int]()
        self.exceptions = SimpleNamespace(RayError=RayError, TaskCancelledError=TaskCancelledError)

    def is_initialized(self) -> bool:
        return bool(self.settings)

    def init(self, **settings: Any) -> None:
        self.settings = settings

    def submit(self, *_: object) -> int:
        self.tasks.append(len(self.tasks))
        return self.tasks[-1]

    def wait(self, waiting: list[int], timeout: float) -> tuple[list[int], list[int]]:
        return waiting[:1], waiting[1:]

    def get(self, task: int) -> object:
        if task in self.cancelled:
            raise TaskCancelledError
        return self.ends[task]()

    def cancel(self, task: int, force: bool) -> None:
        assert not force  # that would kill the worker, and its run's checkpoint with it
        self.cancelled.add(task)


def well() -> JobReturn:
    returned = JobReturn()
    returned.status = JobStatus.COMPLETED
    return returned


def dies() -> JobReturn:
    raise RayError("The worker died.\nA long story.")


def asks_to_end() -> JobReturn:
    interrupt._requested = 2
    return well()


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[FakeRay, Callable[[], list[JobReturn]]]]:
    """Prepares a launch of jobs that end so, with these settings of `hydra.launcher.ray.init`."""
    monkeypatch.setattr(interrupt, "_requested", None)
    monkeypatch.setattr(interrupt, "listen", lambda: None)

    def prepare(*ends: Callable[[], object], **init: Any) -> tuple[FakeRay, Callable[[], list[JobReturn]]]:
        ray, util = FakeRay(ends), ModuleType("util")
        util.launch_job_on_ray = ray.submit  # pyright: ignore[reportAttributeAccessIssue]
        monkeypatch.setitem(sys.modules, "ray", ray)
        monkeypatch.setitem(sys.modules, "hydra_plugins.hydra_ray_launcher._launcher_util", util)

        def load(_: object, overrides: list[str]) -> DictConfig:
            config = compose(["model=tiny_bert", "task=generated", *overrides])
            OmegaConf.update(config, "hydra", {"job": {"id": None, "num": None}}, force_add=True)
            return config

        launcher = SimpleNamespace(
            ray_cfg=OmegaConf.create({"init": init, "remote": {}}),
            config=OmegaConf.create({}),
            hydra_context=SimpleNamespace(config_loader=SimpleNamespace(load_sweep_config=load)),
            task_function=None,
        )
        lines = [[f"seed={i}"] for i in range(len(ends))]
        return ray, lambda: on_ray.OnRay(cast(on_ray.RayLauncher, launcher))(lines, initial_job_idx=0)

    return prepare


@pytest.mark.parametrize(
    ("address", "given"),
    [
        (None, {"address": "local", "object_store_memory": on_ray.STORE_BYTES}),
        ("auto", {"address": "auto"}),
        ("10.0.0.1:6379", {"address": "10.0.0.1:6379"}),
    ],
)
def test_a_cluster_that_runs_already_is_given_no_memory_and_none_is_joined_unasked(
    launch: Any, address: str | None, given: dict[str, Any]
) -> None:
    ray, run = launch(well, well, address=address)
    assert [returned.status for returned in run()] == [JobStatus.COMPLETED] * 2
    assert ray.settings == given


def test_a_request_to_end_cancels_every_job_wherever_it_runs(launch: Any) -> None:
    ray, run = launch(asks_to_end, well, well, address="auto")
    first, *others = run()
    assert ray.cancelled >= {1, 2} and first.status is JobStatus.COMPLETED
    for returned in others:
        with pytest.raises(RunInterruptedError):
            _ = returned.return_value


def test_a_dead_worker_is_named_and_the_other_jobs_are_waited_for(
    launch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[int] = []

    def ends() -> JobReturn:
        ended.append(1)
        return well()

    _, run = launch(ends, dies, ends, address="auto")
    with pytest.raises(RayError):
        run()
    assert len(ended) == 2
    assert "The worker of tiny_bert-generated-lora-r8-qv-s1-" in caplog.text and "died: The worker died." in caplog.text
