"""The file of claims: what it must say, and how a wrong one is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from analysis.claims.declared import CLAIMS, load_claims
from lora_repro.errors import InputError

PART = {"says": "a", "test": "better", "seeds": 3, "item": "table6", "of": {"r": 1}, "than": [{"r": 2}]}
GAIN = {"of": {"method": "lora", "r": 8}, "than": {"method": "head_only"}}
WEIGHTS = {"test": "above_chance", "statistic": "rho", "where": ["q"], "setting": "A, direction 1 of r=8 in r=64"}
STUDY = {"model": "minilm", "task": "movies", "regimes": ["tuned"]}


def written(tmp_path: Path, part: dict[str, Any] | None = None, **claim: Any) -> Path:
    """Writes a file of one claim."""
    entry = {"id": "a", "section": "1", "claim": "b", "kind": "quality", "studies": [STUDY]}
    entry |= {"parts": [PART | part]} if part is not None else {}
    content = yaml.safe_load(CLAIMS.read_text()) | {"claims": [entry | claim]}
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_sound_claim_is_read(tmp_path: Path) -> None:
    (claim,) = load_claims(written(tmp_path, {})).claims
    assert claim.parts[0].than == [{"r": 2}] and claim.studies[0].regimes == ["tuned"]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"test": "beter"}, "there is no test 'beter'. Did you mean"),
        ({"than": []}, "the test better needs than"),
        ({"item": "table66"}, "there is no item 'table66'"),
        ({"by": "much"}, "by: must be nothing or margin"),
        ({"test": "ratio", "measure": "train_seconds"}, "needs least or most"),
        ({"test": "ratio", "measure": "train_second", "least": 1}, "there is no measure 'train_second'"),
        ({"test": "not_worse"}, "the test not_worse needs control"),
        ({"test": "not_worse", "control": GAIN}, "so it cannot fail"),
        ({"seeds": 0}, "the test better needs seeds"),
        ({"asked_of": ["bert movies"]}, "there is no study of bert movies"),
        ({"test": "trend"}, "needs along"),
        ({"sayss": "b"}, "there is no field 'sayss'"),
        ({"seeds": 1}, "seeds: at least 2 have a spread"),
        ({**WEIGHTS, "statistic": "rhoo"}, "statistic: there is no 'rhoo'. Did you mean"),
        ({**WEIGHTS, "against": ["Gausian"]}, "against: there is no 'Gausian'. Did you mean"),
        ({**WEIGHTS, "least": 0.1, "most": 0.2}, "the test above_chance takes least or most. Make a part of each."),
    ],
)
def test_a_wrong_part_is_refused(tmp_path: Path, part: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_claims(written(tmp_path, part))


def test_a_wrong_claim_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it has no parts, so it must say what is missing"):
        load_claims(written(tmp_path))
    with pytest.raises(InputError, match="there is no regime 'tunned'"):
        load_claims(written(tmp_path, {}, studies=[STUDY | {"regimes": ["tunned"]}]))
    with pytest.raises(InputError, match="its parts read runs, so it needs studies"):
        load_claims(written(tmp_path, {}, studies=[]))
    content = yaml.safe_load(CLAIMS.read_text())
    content["claims"].append(content["claims"][0])
    path = tmp_path / "twice.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match="the claim rank_one stands there twice"):
        load_claims(path)
