"""Fit published measurements; predict a configuration that was not measured, or say why not.

    model = fit(distinct(load_published(path)))
    answer = model.predict(configuration)   # Predicted or Abstained

``docs/concepts/silicon-prediction.md`` says how good it is, and where it is bad.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from scepsy.errors import InputError
from scepsy.model.provenance import Provenance
from scepsy.profiles.silicon_fit.accelerator import find_accelerator
from scepsy.profiles.silicon_fit.architecture import find_architecture
from scepsy.profiles.silicon_fit.closed_loop import (
    Array,
    ClosedLoop,
    fit_closed_loop,
    work_of,
)
from scepsy.profiles.silicon_fit.configuration import Configuration, Measured
from scepsy.profiles.silicon_fit.kernel import Kernel, Places, places_of
from scepsy.profiles.silicon_fit.kernels import TPOT_KERNEL, TTFT_KERNEL
from scepsy.profiles.silicon_fit.residual import Residual, fit_residual
from scepsy.profiles.silicon_fit.surface import POINTS, Surface, rising_surface

COVERED = 0.9
"""Part of measurements that should lie within the error bars."""
REACH = 2.0
"""How far beyond what was measured a prediction goes, as a factor."""
MIN_MEASURED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its 90 % error bar."""

    value: float
    low: float
    high: float

    def covers(self, measured: float) -> bool:
        """Whether a measured value lies within the bar."""
        return self.low <= measured <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """What a configuration is expected to do."""

    ttft_s: Estimate
    tpot_s: Estimate
    latency_s: Estimate
    calls_per_s: Estimate
    provenance: Provenance
    nearest: Configuration
    """The measured configuration that is most alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abstained:
    """No prediction: too far from anything measured."""

    missing: str
    """The measurement that would allow one."""


@dataclass(frozen=True, slots=True)
class _Bars:
    """How many deviations make a bar that covers what it should, by leaving groups out."""

    ttft: float
    tpot: float
    latency: float


@dataclass(frozen=True, slots=True)
class SiliconModel:
    """Physics and residuals, fitted to measurements. Answers are remembered by replica."""

    measured: tuple[Measured, ...]
    loop: ClosedLoop
    ttft: Residual
    tpot: Residual
    bars: _Bars
    _surfaces: dict[Configuration, Surface] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def predict(self, configuration: Configuration) -> Predicted | Abstained:
        """Times and throughput of a configuration, or what measurement is missing.

        Raises:
            UnknownNameError: an LLM or GPU type of which not even the facts are known.
        """
        find_architecture(configuration.llm)
        find_accelerator(configuration.gpu_type)
        if (missing := self._missing(configuration)) is not None:
            return Abstained(missing=missing)
        surface = self._surface(configuration)
        ttft_s, decode_s = surface.times_s(
            configuration.concurrency, configuration.input_tokens, configuration.output_tokens
        )
        tpot_s, latency_s = decode_s / (configuration.output_tokens - 1), ttft_s + decode_s
        work = work_of([configuration])
        places = places_of([configuration], work, self.loop)
        ttft_deviation = float(self.ttft.deviation(places)[0])
        tpot_deviation = float(self.tpot.deviation(places)[0])
        of_latency = (ttft_s * ttft_deviation + decode_s * tpot_deviation) / latency_s
        latency = _estimate(latency_s, self.bars.latency * of_latency)
        calls = configuration.concurrency
        alike = np.argmin(self.tpot.kernel.distance(places, self.tpot.places)[0])
        return Predicted(
            ttft_s=_estimate(ttft_s, self.bars.ttft * ttft_deviation),
            tpot_s=_estimate(tpot_s, self.bars.tpot * tpot_deviation),
            latency_s=latency,
            calls_per_s=Estimate(
                value=calls / latency.value, low=calls / latency.high, high=calls / latency.low
            ),
            provenance=self._provenance(configuration),
            nearest=self.measured[int(alike)].configuration,
        )

    def _surface(self, configuration: Configuration) -> Surface:
        replica = replace(configuration, concurrency=1, input_tokens=1, output_tokens=2)
        if replica not in self._surfaces:
            points = [
                replace(replica, concurrency=calls, input_tokens=taken, output_tokens=given)
                for calls, taken, given in POINTS
            ]
            work = work_of(points)
            places = self._known_places(points)
            tokens = np.array([float(c.output_tokens - 1) for c in points])
            self._surfaces[replica] = rising_surface(
                np.log(self.loop.ttft_s(work)) + self.ttft.mean(places),
                np.log(self.loop.tpot_s(work) * tokens) + self.tpot.mean(places),
            )
        return self._surfaces[replica]

    def _known_places(self, points: Sequence[Configuration]) -> Places:
        """Where the residual of points is read: beyond what was measured, at its edge.

        So physics alone goes on from there; a residual of few measurements does not.
        """
        replica = points[0]
        known = [m.configuration for m in self.measured if m.configuration.llm == replica.llm]
        known = [c for c in known if c.engine == replica.engine] or known
        (calls, taken, given) = (
            (min(map(of, known)), max(map(of, known)))
            for of in (_concurrency, _input_tokens, _output_tokens)
        )
        inside = [
            replace(
                c,
                concurrency=min(max(c.concurrency, calls[0]), calls[1]),
                input_tokens=min(max(c.input_tokens, taken[0]), taken[1]),
                output_tokens=min(max(c.output_tokens, given[0]), given[1]),
            )
            for c in points
        ]
        return places_of(inside, work_of(inside), self.loop)

    def _missing(self, wanted: Configuration) -> str | None:
        """What lies more than REACH beyond all that was measured, if anything does."""
        known = [m.configuration for m in self.measured]
        for of, kind in ((_engine, "engine"), (_gpu_type, "GPU type"), (_llm, "LLM")):
            known_here = [c for c in known if of(c) == of(wanted)]
            if not known_here:
                return f"any run of the {kind} {of(wanted)}; none was measured"
        for of_size, unit in _SIZES:
            sizes = [of_size(c) for c in known_here]
            low, high, size = min(sizes), max(sizes), of_size(wanted)
            if not low / REACH <= size <= high * REACH:
                return (
                    f"a run of {wanted.llm} with about {size} {unit}: it was measured with "
                    f"{low} to {high}, and predictions reach {REACH:g}x beyond"
                )
        return None

    def _provenance(self, wanted: Configuration) -> Provenance:
        known = [
            m.configuration
            for m in self.measured
            if (m.configuration.llm, m.configuration.gpu_type) == (wanted.llm, wanted.gpu_type)
        ]
        if not known:
            return Provenance.ASSUMED
        inside = all(
            min(map(size, known)) <= size(wanted) <= max(map(size, known)) for size, _ in _SIZES
        )
        return Provenance.INTERPOLATED if inside else Provenance.EXTRAPOLATED


def fit(
    measured: Sequence[Measured],
    *,
    ttft_kernel: Kernel = TTFT_KERNEL,
    tpot_kernel: Kernel = TPOT_KERNEL,
) -> SiliconModel:
    """The model of some measurements.

    Raises:
        InputError: fewer than MIN_MEASURED measurements.
    """
    if len(measured) < MIN_MEASURED:
        raise InputError(
            f"{len(measured)} measurements are too few to fit", hint=f"give {MIN_MEASURED} or more"
        )
    configurations = [m.configuration for m in measured]
    work = work_of(configurations)
    loop = fit_closed_loop(measured, work)
    places = places_of(configurations, work, loop)
    ttft_s, tpot_s = (
        np.array([m.ttft_s for m in measured]),
        np.array([m.tpot_s for m in measured]),
    )
    ttft = fit_residual(ttft_kernel, places, np.log(ttft_s / loop.ttft_s(work)))
    tpot = fit_residual(tpot_kernel, places, np.log(tpot_s / loop.tpot_s(work)))
    bars = _calibrated(measured, ttft, tpot)
    return SiliconModel(tuple(measured), loop, ttft, tpot, bars)


def _calibrated(measured: Sequence[Measured], ttft: Residual, tpot: Residual) -> _Bars:
    """Deviations within which COVERED of the measurements lie when their group is left out."""
    groups = [m.configuration.group for m in measured]
    ttft_mean, ttft_deviation = ttft.without(groups)
    tpot_mean, tpot_deviation = tpot.without(groups)
    ttft_s = np.array([m.ttft_s for m in measured])
    tpot_s = np.array([m.tpot_s for m in measured])
    ttft_error, tpot_error = ttft.values - ttft_mean, tpot.values - tpot_mean
    tokens = np.array([m.configuration.output_tokens - 1.0 for m in measured])
    first_s, rest_s = ttft_s * np.exp(-ttft_error), tokens * tpot_s * np.exp(-tpot_error)
    latency_s = first_s + rest_s
    deviation = (first_s * ttft_deviation + rest_s * tpot_deviation) / latency_s
    error = np.log(np.array([m.latency_s for m in measured]) / latency_s)
    return _Bars(
        _quantile(ttft_error / ttft_deviation),
        _quantile(tpot_error / tpot_deviation),
        _quantile(error / deviation),
    )


def _quantile(deviations: Array) -> float:
    return float(np.quantile(np.abs(deviations), COVERED))


def _estimate(value: float, spread: float) -> Estimate:
    return Estimate(
        value=value, low=value * float(np.exp(-spread)), high=value * float(np.exp(spread))
    )


def _engine(c: Configuration) -> str:
    return c.engine


def _gpu_type(c: Configuration) -> str:
    return c.gpu_type


def _llm(c: Configuration) -> str:
    return c.llm


def _gpus(c: Configuration) -> int:
    return c.gpus


def _concurrency(c: Configuration) -> int:
    return c.concurrency


def _input_tokens(c: Configuration) -> int:
    return c.input_tokens


def _output_tokens(c: Configuration) -> int:
    return c.output_tokens


_SIZES: tuple[tuple[Callable[[Configuration], int], str], ...] = (
    (_gpus, "GPUs"),
    (_concurrency, "calls in flight"),
    (_input_tokens, "input tokens"),
    (_output_tokens, "output tokens"),
)
