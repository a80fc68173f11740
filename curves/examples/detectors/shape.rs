//! The clean curves of healthy runs.

use fastrand::Rng;

/// Clean curves of healthy runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Fast,
    Slow,
    StepSchedule,
    Cosine,
    WarmUp,
    SmallBatch,
    LateDrop,
    FineTuning,
}

pub(crate) const SHAPES: [Shape; 8] = [
    Shape::Fast,
    Shape::Slow,
    Shape::StepSchedule,
    Shape::Cosine,
    Shape::WarmUp,
    Shape::SmallBatch,
    Shape::LateDrop,
    Shape::FineTuning,
];

/// What a run is like before its fault.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Base {
    pub(crate) start: f64,
    pub(crate) floor: f64,
    pub(crate) pace: f64,
    pub(crate) drops: [f64; 2],
}

pub(crate) fn base(rng: &mut Rng, shape: Shape) -> Base {
    let start = 2.0 + 6.0 * rng.f64();
    let floor = start * (0.05 + 0.3 * rng.f64());
    let pace = 0.6 + 0.8 * rng.f64();
    let drops = [0.4 + 0.15 * rng.f64(), 0.7 + 0.15 * rng.f64()];
    if shape == Shape::FineTuning {
        let start = 0.5 + rng.f64();
        return Base { start, floor: start * (0.7 + 0.15 * rng.f64()), pace, drops };
    }
    Base { start, floor, pace, drops }
}

/// The clean loss at `t`, the share of the run that is done.
pub(crate) fn clean(base: &Base, shape: Shape, t: f64) -> f64 {
    let gain = base.start - base.floor;
    let left = match shape {
        Shape::Fast | Shape::SmallBatch => (-t / (0.04 * base.pace)).exp(),
        Shape::Slow => (1.0 + 40.0 * base.pace * t).powf(-0.6),
        Shape::StepSchedule => {
            let kept =
                0.15 * f64::from(u8::from(t < base.drops[0])) + 0.08 * f64::from(u8::from(t < base.drops[1]));
            kept + 0.77 * (-t / (0.06 * base.pace)).exp()
        }
        Shape::Cosine => {
            0.6 * (-t / (0.15 * base.pace)).exp() + 0.2 * (1.0 + (std::f64::consts::PI * t).cos())
        }
        Shape::WarmUp => (-(t - 0.03).max(0.0) / (0.12 * base.pace)).exp(),
        Shape::LateDrop => {
            0.5 * (-t / 0.03).exp() + 0.5 / (1.0 + ((t - base.drops[1]) / 0.02).exp().min(1e9))
        }
        Shape::FineTuning => (-t / (0.1 * base.pace)).exp(),
    };
    base.floor + gain * left
}

/// The learning rate at `t`.
pub(crate) fn rate(shape: Shape, drops: [f64; 2], t: f64) -> f64 {
    let cosine = |t: f64| 0.5 * (1.0 + (std::f64::consts::PI * t).cos());
    3e-4 * match shape {
        Shape::Fast | Shape::SmallBatch | Shape::LateDrop => 1.0,
        Shape::Slow | Shape::Cosine | Shape::FineTuning => cosine(t).max(1e-6),
        Shape::StepSchedule => {
            let low = |at: f64| if t < at { 1.0 } else { 0.1 };
            low(drops[0]) * low(drops[1])
        }
        Shape::WarmUp => (t / 0.03).min(1.0) * cosine(((t - 0.03) / 0.97).max(0.0)).max(1e-6),
    }
}
