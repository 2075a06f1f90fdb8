"""Names of what a run writes into its directory, beside its lock and its result."""

TRAINED = "trained.safetensors"
"""The weights that a method without PEFT's layout has trained."""
PREDICTIONS = "predictions.parquet"
ADAPTER, SNAPSHOTS, CHECKPOINT = "adapter", "snapshots", "checkpoint"

HASHED_FILES = (PREDICTIONS, TRAINED)
HASHED_FOLDERS = (ADAPTER, SNAPSHOTS)
"""What a result names by its sha256. Logs are not hashed: a power cut may cost them their last lines."""

FILES = ("status.json", "config.yaml", "metrics.jsonl", "run.log", *HASHED_FILES)
FOLDERS = (CHECKPOINT, *HASHED_FOLDERS)
"""Everything that a run writes."""
