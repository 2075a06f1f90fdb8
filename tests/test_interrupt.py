"""What a signal does depends on whose process it is and on what is under way."""

import signal
from collections.abc import Callable

import pytest

from lora_repro import interrupt
from lora_repro.errors import RunInterruptedError


@pytest.fixture
def hear(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Delivers a signal to a worker of no launcher's with handlers; tests say what else holds."""
    monkeypatch.setattr(interrupt, "REPEAT_S", -1.0)
    for name, value in {"_requested": None, "_is_program": False, "_has_job": False, "_is_deferred": False}.items():
        monkeypatch.setattr(interrupt, name, value)
    monkeypatch.setattr(interrupt, "_launchers", {})
    monkeypatch.setattr(interrupt, "_is_warned", False)
    return lambda number: interrupt._hear(number, None)


def test_the_program_ends_at_once_while_nothing_is_to_be_lost(
    hear: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interrupt, "_is_program", True)
    with pytest.raises(KeyboardInterrupt):
        hear(signal.SIGINT)


def test_a_run_of_the_program_ends_at_its_next_step_and_at_once_by_a_second_signal(
    hear: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interrupt, "_is_program", True)
    with interrupt.deferred():
        interrupt.refuse_to_go_on()
        hear(signal.SIGINT)
        with pytest.raises(interrupt.AskedToEndError):
            interrupt.refuse_to_go_on()
        with pytest.raises(KeyboardInterrupt):
            hear(signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_that_comes_again_is_one_request(
    number: int, hear: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`timeout` sends SIGTERM to the process and to its group, a closed terminal SIGHUP up to three times."""
    monkeypatch.setattr(interrupt, "_is_program", True)
    with interrupt.deferred():
        for _ in range(3):
            hear(number)
        with pytest.raises(interrupt.AskedToEndError):
            interrupt.refuse_to_go_on()


def test_ctrl_c_and_its_echo_are_one_request(hear: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "_is_program", True)
    monkeypatch.setattr(interrupt, "REPEAT_S", 60.0)
    with interrupt.deferred():
        hear(signal.SIGINT)
        hear(signal.SIGINT)
        with pytest.raises(interrupt.AskedToEndError):
            interrupt.refuse_to_go_on()


@pytest.mark.parametrize(("found", "heard"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_a_closed_terminal_is_heard_unless_nohup_says_otherwise(found: signal.Handlers, heard: bool) -> None:
    kept = {number: signal.getsignal(number) for number in interrupt.SIGNALS}
    try:
        signal.signal(signal.SIGHUP, found)
        interrupt.listen()
        assert (signal.getsignal(signal.SIGHUP) is interrupt._hear) is heard
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def test_a_worker_hears_once_and_writes_its_checkpoint_undisturbed(
    hear: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interrupt, "_has_job", True)
    with interrupt.deferred():
        hear(signal.SIGTERM)
    for _ in range(3):
        hear(signal.SIGTERM)  # the program repeats itself until the worker has ended its run
    with pytest.raises(RunInterruptedError):
        interrupt.pass_on()


def test_a_worker_ends_a_run_that_is_being_loaded_and_never_itself(
    hear: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    hear(signal.SIGTERM)
    assert interrupt.requested()
    monkeypatch.setattr(interrupt, "_requested", None)
    monkeypatch.setattr(interrupt, "_has_job", True)
    with pytest.raises(KeyboardInterrupt):
        hear(signal.SIGTERM)


def test_a_launchers_own_handler_is_called_when_the_run_is_safe(
    hear: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[int] = []

    def requeue(number: int, _: object) -> None:
        called.append(number)
        raise SystemExit(-1)

    monkeypatch.setattr(interrupt, "_launchers", {signal.SIGUSR2: requeue, signal.SIGTERM: lambda *_: None})
    with interrupt.deferred():
        hear(signal.SIGUSR2)
        assert called == []
    with pytest.raises(SystemExit):
        interrupt.pass_on()
    assert called == [signal.SIGUSR2]
    monkeypatch.setattr(interrupt, "_requested", signal.SIGTERM)
    for answer, code, calls in [(False, 143, 1), (True, -1, 2)]:  # Slurm's: cancelled, or preempted with a GraceTime
        monkeypatch.setattr(interrupt.slurm, "shall_requeue", lambda warned, answer=answer: answer)
        with pytest.raises(SystemExit) as ended:
            interrupt.pass_on()
        assert ended.value.code == code and called == [signal.SIGUSR2] * calls
