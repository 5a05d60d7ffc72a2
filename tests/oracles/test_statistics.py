"""The report's statistics against SciPy and statsmodels, on fresh draws; BLEU against sacreBLEU's own command."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from posenc.report.statistics.intervals import holm, interval, mcnemar, power

pytestmark = pytest.mark.oracle
WHY = "the peer statsmodels is not installed: nox -s oracles"


@pytest.mark.parametrize("seeds", [2, 5, 30])
def test_the_paired_t_test(fresh_seed: int, seeds: int) -> None:
    generator = np.random.default_rng(fresh_seed)
    for _ in range(50):
        ours, theirs = generator.normal(3.0, 0.2, (2, seeds))
        found = interval([a - b for a, b in zip(ours, theirs, strict=True)])
        peer = stats.ttest_rel(ours, theirs)
        limits = peer.confidence_interval(0.95)
        assert found.p == pytest.approx(peer.pvalue, rel=1e-9)
        assert (found.low, found.high) == pytest.approx((limits.low, limits.high), rel=1e-9, abs=1e-12)


def test_holm(fresh_seed: int) -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason=WHY)
    generator = np.random.default_rng(fresh_seed)
    for size in (1, 2, 7, 40):
        values = list(generator.random(size) ** 3)
        values[size // 2] = values[0]  # a tie
        assert holm(values) == pytest.approx(list(multitest.multipletests(values, method="holm")[1]), rel=1e-12)


def test_power(fresh_seed: int) -> None:
    peer = pytest.importorskip("statsmodels.stats.power", reason=WHY).TTestPower()
    generator = np.random.default_rng(fresh_seed)
    for _ in range(40):
        effect, seeds = float(generator.uniform(0.1, 1.5)), int(generator.integers(2, 20))
        theirs = peer.power(effect, seeds, 0.05)
        if math.isfinite(theirs):  # in the far tail SciPy's series, which they use there too, gives no number
            assert power(effect, seeds) == pytest.approx(theirs, abs=1e-9)
        else:
            assert power(effect, seeds) > 0.99


def test_mcnemar(fresh_seed: int) -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables", reason=WHY)
    generator = np.random.default_rng(fresh_seed)
    for _ in range(60):
        mine, theirs = (int(n) for n in generator.integers(0, 30, 2))
        expected = tables.mcnemar([[50, mine], [theirs, 20]], exact=True).pvalue if mine + theirs else 1.0
        assert mcnemar(mine, theirs) == pytest.approx(expected, rel=1e-12)


def test_bleu_is_that_of_sacrebleus_command(tmp_path: Path, fresh_seed: int) -> None:
    """Through the objective's own method, on texts with punctuation, numbers and letters beyond ASCII."""
    from posenc.objectives.translation import Translation

    generator = np.random.default_rng(fresh_seed)
    words = ["Männer,", "gehen", "3.5", "Hunde", "über", "die", "Straße.", "“so”", "a-b", "Kind"]
    references = [" ".join(generator.choice(words, 9)) for _ in range(30)]
    translations = [" ".join(w if generator.random() < 0.8 else "x" for w in line.split()) for line in references]
    (tmp_path / "reference").write_text("\n".join(references) + "\n", encoding="utf-8")
    (tmp_path / "system").write_text("\n".join(translations) + "\n", encoding="utf-8")
    command = ["-m", "sacrebleu", str(tmp_path / "reference"), "-i", str(tmp_path / "system"), "-m", "bleu", "-w", "12"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
    objective = Translation.__new__(Translation)
    objective.texts = {"test": [("", line) for line in references]}
    score, details = objective.bleu(translations, "test")
    answer = json.loads(done.stdout)
    assert score == pytest.approx(answer["score"], abs=1e-9)
    assert details["signature"] == answer["signature"]
