"""method=peft: any tuner of the installed PEFT, by its own configuration.

Importing this package needs neither torch nor PEFT: what PEFT declares is read from its source (declared.py). Its code
runs in tuner.py, prompts.py and skeleton.py, where a run is counted, trained or scored.
"""

from lora_repro.methods.peft.config import PeftConfig

__all__ = ["PeftConfig"]
