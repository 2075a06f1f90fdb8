"""The blocks of a model, by the names of its parameters. No torch."""

from collections.abc import Iterable

from lora_repro.errors import InputError


def blocks(parameters: Iterable[str]) -> list[str]:
    """Returns the modules of the blocks, in their order: what ends with the first number in a parameter's name.

    Args:
        parameters: Names of parameters, of a model or of its base model.

    Raises:
        InputError: If there is more than one stack of blocks, or none.
    """
    found: dict[str, dict[int, str]] = {}
    for name in parameters:
        parts = name.split(".")
        at = next((index for index, part in enumerate(parts) if part.isdigit()), None)
        if at is not None:
            found.setdefault(".".join(parts[:at]), {})[int(parts[at])] = ".".join(parts[: at + 1])
    if len(found) != 1:
        stacks = f"{len(found)} stacks of blocks ({', '.join(found)})" if found else "no blocks"
        raise InputError(f"model: it has {stacks}, and the method needs one.\nChoose another method or model.")
    (stack,) = found.values()
    return [stack[number] for number in sorted(stack)]
