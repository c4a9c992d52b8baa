"""The budget's logic on a synthetic network, where each layer in INT8 costs a known number of AP
points."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeface.decode import HeadLayout
from edgeface.errors import QuantizeError
from quantize.base import Quantized, Quantizer
from quantize.budget import Budget, FileAccuracy, HeadNoise, smallest, worst_drop
from quantize.journal import QuantizeJournal
from quantize.measure import CANDIDATES, head_noise

DAMAGE = {"stem": 0.1, "conv1": 4.0, "conv2": 0.02, "neck": 1.0, "head8": 0.3, "head16": 0.05}
"""AP points that a layer costs in INT8"""


class Synthetic(Quantizer):
    """Writes files that list the layers kept in float."""

    target: ClassVar[str] = "synthetic"
    scales: ClassVar[tuple[str, ...]] = ("mse", "max")
    distributions: ClassVar[tuple[str, ...]] = ()

    def __init__(self, damage: dict[str, float]) -> None:
        self.damage = damage
        self.quantizations = 0

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(self.damage)

    def quantize(self, reverted: Collection[str] = ()) -> Quantized:
        self.quantizations += 1
        assert list(reverted) == [name for name in self.damage if name in reverted], (
            "in order of execution"
        )
        return Quantized({".txt": ",".join(reverted).encode()})


def ap(easy: float | None, medium: float | None, hard: float | None) -> FileAccuracy:
    return FileAccuracy(easy, medium, hard, {"0-16": None}, 3, "synthetic")


FLOAT = ap(0.9, 0.8, 0.7)


class Bench:
    """Measures synthetic files and counts the measurements."""

    def __init__(
        self, damage: dict[str, float] | None = None, journal: QuantizeJournal | None = None
    ) -> None:
        self.damage = DAMAGE if damage is None else damage
        self.measured: list[tuple[str, ...]] = []
        self.noises = 0
        self.journal = QuantizeJournal(None, "") if journal is None else journal
        self.quantizer = Synthetic(self.damage)
        self.budget = Budget(
            self.quantizer, self.noise, self.accuracy, self.journal, untried=Synthetic.scales
        )

    def lost(self, quantized: Quantized) -> tuple[tuple[str, ...], float]:
        reverted = tuple(filter(None, quantized.files[".txt"].decode().split(",")))
        return reverted, sum(points for name, points in self.damage.items() if name not in reverted)

    def noise(self, quantized: Quantized) -> HeadNoise:
        self.noises += 1
        return HeadNoise({"cls_8": 1.0, "box_8": 0.001}, self.lost(quantized)[1] / 100)

    def accuracy(self, quantized: Quantized, what: str) -> FileAccuracy:
        reverted, points = self.lost(quantized)
        self.measured.append(reverted)
        return ap(0.9 - points / 200, 0.8 + points / 100, 0.7 - points / 100)


class TestHold:
    def test_all_in_int8_if_that_is_enough(self) -> None:
        bench = Bench()
        assert bench.budget.hold(FLOAT, 5.5) == ()
        assert bench.measured == [()]
        assert bench.noises == 0

    @pytest.mark.parametrize("points", [0.1, 0.2, 0.3, 0.5, 0.7, 1.0])
    def test_a_drop_of_exactly_the_budget_holds_it(self, points: float) -> None:
        """As a float, the difference of two APs may be a little more than it is."""
        assert Bench({"conv": points}).budget.hold(FLOAT, points) == ()

    @pytest.mark.parametrize(
        ("max_drop", "count"), [(5.47, 0), (5.46, 1), (1.47, 1), (1.46, 2), (0.47, 2), (0.17, 3)]
    )
    def test_the_fewest_and_the_worst_layers(self, max_drop: float, count: int) -> None:
        bench = Bench()
        assert bench.budget.hold(FLOAT, max_drop) == ("conv1", "neck", "head8")[:count]
        assert len(set(bench.measured)) == len(bench.measured), "measured once each"

    def test_share(self) -> None:
        assert Bench().budget.hold(FLOAT, 0.02, share=1.0) == (
            "conv1",
            "neck",
            "head8",
            "stem",
            "head16",
        )
        with pytest.raises(QuantizeError, match="with 1 of 6 layers in float"):
            Bench().budget.hold(FLOAT, 0.5, share=0.2)
        with pytest.raises(QuantizeError, match="with 0 of 6 layers in float"):
            Bench().budget.hold(FLOAT, 0.5, share=0.0)

    def test_a_share_that_floats_round_down(self) -> None:
        assert int(0.58 * 50) == 28, "which is 29"
        bench = Bench({str(layer): 0.1 for layer in range(50)})
        assert len(bench.budget.hold(FLOAT, 2.1, share=0.58)) == 29

    def test_cannot_be_held(self) -> None:
        with pytest.raises(QuantizeError) as caught:
            Bench().budget.hold(FLOAT, 0.1)
        assert (
            str(caught.value)
            == "the budget of 0.1 AP points cannot be held: best drop 0.17 points with 3 of 6"
            " layers in float: accept it with --max-drop 0.17, or give more calibration photos"
            " (--images), or another --scale (mse, max)"
        )
        assert caught.value.all_int8_drop == 5.47

    def test_what_the_error_offers_holds_without_measuring_again(self) -> None:
        journal = QuantizeJournal(None, "")
        with pytest.raises(QuantizeError, match=r"best drop 0\.17 points"):
            Bench(journal=journal).budget.hold(FLOAT, 0.1)
        again = Bench(journal=journal)
        assert again.budget.hold(FLOAT, 0.17) == ("conv1", "neck", "head8")
        assert not again.measured and not again.noises

    def test_where_one_ranking_fails_the_other_is_tried(self) -> None:
        """The damage to candidates is the same for all layers here, so its ranking is the order of
        execution; the noise of the heads ranks the layers correctly."""

        class Misled(Bench):
            def noise(self, quantized: Quantized) -> HeadNoise:
                return HeadNoise({"cls_8": 1.0, "box_8": super().noise(quantized).damage}, 0.5)

        bench = Misled({"a": 0.1, "b": 0.1, "c": 0.1, "d": 4.0, "e": 0.2, "f": 3.0})
        assert bench.budget.hold(FLOAT, 0.6) == ("d", "f")
        assert len(set(bench.measured)) == len(bench.measured), "measured once each"
        with pytest.raises(
            QuantizeError, match=r"best drop 0\.3 points with 3 of 6 layers in float"
        ):
            bench.budget.hold(FLOAT, 0.2)

    def test_a_layer_that_int8_improves_is_reverted_last(self) -> None:
        assert Bench({"a": -0.5, "b": 1.0, "c": 2.0}).budget.ranked() == ("c", "b", "a")

    def test_equal_layers_in_order_of_execution(self) -> None:
        assert Bench(dict.fromkeys("dcba", 1.0)).budget.ranked() == ("d", "c", "b", "a")

    def test_stopped_anywhere_it_goes_on_there(self, tmp_path: Path) -> None:
        """A run killed after any number of measurements resumes with the same answer and repeats
        none of them."""
        whole = Bench()
        expected = whole.budget.hold(FLOAT, 0.47)
        steps = whole.noises + len(whole.measured)
        for survived in range(steps):
            path, left = tmp_path / f"{survived}.json", survived

            class Killed(Bench):
                def step(self) -> None:
                    nonlocal left
                    if left == 0:
                        raise KeyboardInterrupt
                    left -= 1

                def noise(self, quantized: Quantized) -> HeadNoise:
                    self.step()
                    return super().noise(quantized)

                def accuracy(self, quantized: Quantized, what: str) -> FileAccuracy:
                    self.step()
                    return super().accuracy(quantized, what)

            with pytest.raises(KeyboardInterrupt):
                Killed(journal=QuantizeJournal(path, "same")).budget.hold(FLOAT, 0.47)
            resumed = Bench(journal=QuantizeJournal(path, "same"))
            assert resumed.budget.hold(FLOAT, 0.47) == expected
            assert resumed.noises + len(resumed.measured) == steps - survived


@given(st.integers(0, 60), st.integers(1, 60))
def test_smallest_is_found_in_few_tries(most: int, needed: int) -> None:
    tried: list[int] = []

    def holds(count: int) -> bool:
        tried.append(count)
        return count >= needed

    assert smallest(holds, most) == (needed if needed <= most else None)
    assert len(tried) == len(set(tried)) <= 2 * max(most, 1).bit_length()
    assert all(1 <= count <= most for count in tried)


@given(st.lists(st.booleans(), max_size=20))
def test_smallest_returns_nothing_that_does_not_hold(answers: list[bool]) -> None:
    found = smallest(lambda count: answers[count - 1], len(answers))
    assert found is None or answers[found - 1]


class TestWorstDrop:
    def test_worst_of_the_three(self) -> None:
        assert worst_drop(FLOAT, ap(0.89, 0.81, 0.699)) == pytest.approx(1.0)
        assert worst_drop(FLOAT, ap(0.91, 0.81, 0.71)) == pytest.approx(-1.0)

    def test_settings_without_faces_do_not_count(self) -> None:
        assert worst_drop(ap(None, 0.8, None), ap(None, 0.7, None)) == pytest.approx(10)
        with pytest.raises(QuantizeError, match="no annotated face counts"):
            worst_drop(ap(None, None, None), ap(None, None, None))


class TestHeadNoise:
    layout = HeadLayout((32,))

    def heads(
        self, face: float = 2.0, background: float = -6.0, side: float = 1.0
    ) -> dict[str, np.ndarray]:
        """Heads of 40x40 cells; the first is a face, whose box is ``side`` strides long."""
        cls, box = (
            np.full((1, 40, 40, 1), background, np.float32),
            np.full((1, 40, 40, 4), 0.5, np.float32),
        )
        cls[0, 0, 0, 0] = face
        box[0, 0, 0] = side / 2
        return {"cls_32": cls, "box_32": box}

    def compare(self, found: dict[str, np.ndarray]) -> HeadNoise:
        return head_noise([self.heads()] * 2, [found] * 2, self.layout)

    def test_power_relative_to_the_variance(self) -> None:
        reference = self.heads()
        noise = self.compare(reference | {"cls_32": reference["cls_32"] + np.float32(0.02)})
        power = 0.02**2 / reference["cls_32"].var()
        assert noise.power == {"cls_32": pytest.approx(power, rel=1e-3), "box_32": 0}
        assert noise.snr_db == {
            "cls_32": pytest.approx(-10 * np.log10(power), abs=0.01),
            "box_32": 200,
        }

    def test_damage_is_the_change_of_the_best_candidates(self) -> None:
        assert self.compare(self.heads()).damage == 0
        score, less = 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-1))
        assert self.compare(self.heads(face=1)).damage == pytest.approx(
            (score - less) ** 2 / CANDIDATES, rel=1e-4
        )
        # A box of half the side covers a quarter.
        assert self.compare(self.heads(side=0.5)).damage == pytest.approx(
            (0.75 * score) ** 2 / CANDIDATES, rel=1e-4
        )

    def test_damage_leaves_the_background_out(self) -> None:
        """An error in one of the 1599 other cells is the same noise in the heads as an equal error
        in the face, but no damage."""
        found = self.heads()
        found["cls_32"][0, 39, 39, 0] -= 1
        noise, face = self.compare(found), self.compare(self.heads(face=1))
        assert noise.power == pytest.approx(face.power)
        assert noise.damage == 0 < face.damage

    def with_points(self, move: float = 0.0, cell: int = 0, **face: float) -> dict[str, np.ndarray]:
        """Heads with landmarks, those of ``cell`` moved by ``move`` strides to the right."""
        kps = np.full((1, 40, 40, 10), 0.25, np.float32)
        kps.reshape(-1, 5, 2)[cell, :, 0] += move
        return self.heads(**face) | {"kps_32": kps}

    @pytest.mark.parametrize(("move", "side"), [(0.1, 1.0), (0.1, 2.0), (-3.0, 1.0)])
    def test_moved_landmarks_are_damage(self, move: float, side: float) -> None:
        """The damage is their shift in sides of the box, at most that of a lost box."""
        layout, score = HeadLayout((32,), landmarks=5), 1 / (1 + np.exp(-2))
        before, after = self.with_points(side=side), self.with_points(move, side=side)
        found = head_noise([before], [after], layout)
        damage = (score * min(abs(move) / side, 1)) ** 2 / CANDIDATES
        assert found.damage == pytest.approx(damage, rel=1e-3) and found.power["box_32"] == 0
        background = (CANDIDATES - 1) / (1 + np.exp(6))
        shift = score * abs(move) / side / (score + background)
        assert found.landmark_shift == pytest.approx(shift, rel=1e-3)

    def test_landmarks_of_the_background_are_none(self) -> None:
        layout = HeadLayout((32,), landmarks=5)
        background = head_noise([self.with_points()], [self.with_points(0.5, cell=1599)], layout)
        face = head_noise([self.with_points()], [self.with_points(0.5)], layout)
        assert background.power == pytest.approx(face.power)
        assert (background.damage, background.landmark_shift) == (0, 0)
        assert face.damage > 0 and self.compare(self.heads()).landmark_shift is None

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_broken_landmarks_are_the_worst_and_finite(self, bad: float) -> None:
        layout = HeadLayout((32,), landmarks=5)
        found = head_noise([self.with_points()], [self.with_points(bad)], layout)
        assert found.power["kps_32"] == found.landmark_shift == 1e30
        assert 0.7 / CANDIDATES < found.damage < np.inf

    def test_a_false_face_is_damage(self) -> None:
        found = self.heads()
        found["cls_32"][0, 39, 39, 0] = 2
        assert self.compare(found).damage > 0.5 / CANDIDATES

    @pytest.mark.parametrize("bad", [np.nan, np.inf, 1e38])
    def test_broken_heads_are_the_worst_and_finite(self, bad: float) -> None:
        noise = self.compare(self.heads() | {"box_32": np.full((1, 40, 40, 4), bad, np.float32)})
        assert noise.power["box_32"] == 1e30
        # At least the damage of losing the only face, whose score is 1 / (1 + exp(-2)) = 0.88.
        assert 0.88**2 / CANDIDATES < noise.damage < np.inf
        assert noise.snr_db["box_32"] == pytest.approx(-300)
