"""The table of measured memory: which runs it asks for."""

from typing import Any

import pytest

from lora_repro.bench import memory


@pytest.mark.parametrize(
    "given",
    [
        ["--models", "minilm", "mpnet", "--methods", "lora", "full", "task=movies"],
        ["task=movies", "--models", "minilm", "mpnet", "--methods", "lora", "full"],
        ["--methods", "lora", "full", "task=movies", "--models", "minilm", "mpnet"],
    ],
)
def test_overrides_may_stand_before_behind_and_between_the_names(
    given: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []

    def in_a_process(arguments: list[str]) -> dict[str, Any]:
        asked.append(arguments[2:])
        return memory.Measured("minilm", "lora", "bf16", 64, 1.0, 1.5, {})._asdict()

    monkeypatch.setattr(memory, "_in_a_process", in_a_process)
    memory.main(given)
    pairs = [[f"model={model}", f"method={method}"] for model in ("minilm", "mpnet") for method in ("lora", "full")]
    assert asked == [["task=movies", *pair] for pair in pairs]
    assert capsys.readouterr().out.count("| 64 tokens | 1.00 | 1.50 | 1.50 |") == 4
