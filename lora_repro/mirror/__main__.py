"""`python -m lora_repro.mirror RUN_DIR`: mirrors records, as often as asked."""

import logging
import sys

from lora_repro.mirror.process import main

if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s")
    sys.exit(main())
