"""Scores of generated texts as Markdown and JSON."""

from typing import Any

from analysis.foreign_text import escaped
from analysis.render import lines
from analysis.texts.scores import Sample, Samples, Score, Scores


def to_json(found: Scores) -> str:
    """Writes an object: the metrics under the names of the official scripts, their signatures, and the samples."""
    samples = found.samples
    shown = {} if samples is None else {"samples": {"metric": samples.metric.key, **_sample_lists(samples)}}
    return lines.to_json(
        {
            "protocol": found.protocol.name,
            "texts": found.texts,
            "references": found.references,
            **{score.metric.key: score.value for score in found.scores},
            "signatures": {score.metric.key: score.metric.signature for score in found.scores},
            **shown,
        }
    )


def _sample_lists(samples: Samples) -> dict[str, list[dict[str, Any]]]:
    return {name: [each._asdict() for each in getattr(samples, name)] for name in ("worst", "best")}


def markdown(found: Scores) -> str:
    """Writes a table of the metrics, what decides their values, and the samples."""
    table = [["metric", "value", "unit"], *([each.metric.key, _value(each), _unit(each)] for each in found.scores)]
    parts = [
        f"## {found.protocol.name}: {found.texts:,} texts, {found.references:,} references",
        f"Protocol: {found.protocol.about}.",
        "\n".join(lines.aligned(table)),
        "Signatures:",
        "\n".join(f"- {score.metric.key}: `{score.metric.signature}`" for score in found.scores),
    ]
    if (samples := found.samples) is not None:
        key, digits = samples.metric.key, 2 if samples.metric.in_percent else 4
        for name, rows in (("Worst", samples.worst), ("Best", samples.best)):
            parts.append(f"### {name} by {key}")
            parts += [_sample(row, key, digits) for row in rows]
    return "\n\n".join(parts)


def _value(score: Score) -> str:
    return f"{score.value:.2f}" if score.metric.in_percent else f"{score.value:.4f}"


def _unit(score: Score) -> str:
    metric = score.metric.metric
    unit = "percent" if score.metric.in_percent else "0 to 1" if metric.high == 1 else "a number"
    return unit if metric.higher_is_better else f"{unit}, lower is better"


def _sample(sample: Sample, key: str, digits: int) -> str:
    written = escaped(sample.text) if sample.text else "(nothing)"
    references = [f"  - right: {escaped(text)}" for text in sample.references]
    return "\n".join([f"- {sample.place}, {key} {sample.value:.{digits}f}", f"  - written: {written}", *references])
