"""`python -m lora_repro.fetch NAME ...`: fetches weights and data."""

import sys

from lora_repro.environment import refuse_outside

if __name__ == "__main__":
    refuse_outside()
    from lora_repro.fetch.fetch import main

    sys.exit(main())
