"""Names of what a run writes into its directory, beside its lock, its result and what its method names itself."""

TRAINED = "trained.safetensors"
"""The weights that a method without a layout of its own has trained."""
PREDICTIONS = "predictions.parquet"
ADAPTER, SNAPSHOTS, CHECKPOINT = "adapter", "snapshots", "checkpoint"

HASHED_FILES = (PREDICTIONS, TRAINED)
HASHED_FOLDERS = (ADAPTER, SNAPSHOTS)
"""Files that count as damaged or foreign unless the result names them by their sha256, as it does whatever a method
writes. Logs are not hashed: a power cut may cost them their last lines."""

FILES = ("status.json", "config.yaml", "metrics.jsonl", "run.log", *HASHED_FILES)
FOLDERS = (CHECKPOINT, *HASHED_FOLDERS)
"""Everything that a run writes, except for the folder of a method with another one."""

SETTINGS_KEY = "circumstances"
"""What config.yaml calls the settings: their former name, so that older records are read."""
