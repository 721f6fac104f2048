//! Axes: which values are in sight, and where the ticks are.

/// How values map to an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From zero.
    FromZero,
    /// From the smallest to the largest.
    Between,
    /// Whole numbers, from the smallest to the largest.
    Whole,
    /// Powers of ten; values that are not positive are left out.
    Log,
}

/// One axis: its name, its range and where its ticks are.
pub(in crate::report) struct Axis {
    log: bool,
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) ticks: Vec<f64>,
}

impl Axis {
    pub(in crate::report) fn new(scale: Scale, values: impl Iterator<Item = f64>) -> Option<Self> {
        let log = scale == Scale::Log;
        let (mut low, mut high) = values
            .filter(|v| v.is_finite() && (!log || *v > 0.0))
            .map(|v| if log { v.log10() } else { v })
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            return None;
        }
        if scale == Scale::FromZero {
            low = low.min(0.0);
        }
        if low == high {
            (low, high) = if log {
                (low - 0.5, high + 0.5)
            } else {
                (low - low.abs() * 0.1 - 1e-9, high + high.abs() * 0.1 + 1e-9)
            };
        }
        if log && high - low < 1.7 {
            return Some(Self::short_log(low, high));
        }
        let step = match scale {
            Scale::Log => ((high - low) / 6.0).ceil().max(1.0),
            Scale::Whole => nice((high - low) / 5.0).max(1.0),
            Scale::FromZero | Scale::Between => nice((high - low) / 5.0),
        };
        let (from, to) = ((low / step).floor() * step, (high / step).ceil() * step);
        let count = ((to - from) / step).round() as usize;
        let ticks = (0..=count).map(|i| from + i as f64 * step).collect();
        Some(Self { log, from, to, ticks })
    }

    /// A logarithmic axis over less than two decades: ticks at 1, 2, 3, 5 and 7 times powers of ten.
    fn short_log(low: f64, high: f64) -> Self {
        let first = low.floor() as i32 - 1;
        let all: Vec<f64> =
            (first..first + 5).flat_map(|e| [1.0, 2.0, 3.0, 5.0, 7.0].map(|m: f64| m.log10() + f64::from(e))).collect();
        let from = all.iter().copied().filter(|&t| t <= low + 1e-9).fold(f64::NEG_INFINITY, f64::max);
        let to = all.iter().copied().filter(|&t| t >= high - 1e-9).fold(f64::INFINITY, f64::min);
        let ticks = all.into_iter().filter(|&t| t >= from - 1e-9 && t <= to + 1e-9).collect();
        Self { log: true, from, to, ticks }
    }

    /// Where a value lies, 0 at the axis' start and 1 at its end; `None` when it cannot be shown.
    pub(in crate::report) fn place(&self, value: f64) -> Option<f64> {
        let v = if self.log { value.log10() } else { value };
        v.is_finite().then(|| ((v - self.from) / (self.to - self.from)).clamp(0.0, 1.0))
    }

    /// The value at the axis' start.
    pub(in crate::report) fn first(&self) -> f64 {
        if self.log { 10f64.powf(self.from) } else { self.from }
    }

    /// The value at its end.
    pub(in crate::report) fn last(&self) -> f64 {
        if self.log { 10f64.powf(self.to) } else { self.to }
    }

    pub(super) fn tick_label(&self, tick: f64) -> String {
        let value = if self.log { 10f64.powf(tick) } else { tick };
        number(value)
    }
}

/// The largest of 1, 2, 5 times a power of ten that is not above `1.5 * raw`.
fn nice(raw: f64) -> f64 {
    let power = 10f64.powf(raw.log10().floor());
    let factor = [5.0, 2.0].into_iter().find(|f| f * power <= 1.5 * raw).unwrap_or(1.0);
    factor * power
}

/// A number as an axis shows it.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude < 1e-12 {
        "0".to_owned()
    } else if !(1e-3..1e5).contains(&magnitude) {
        format!("{value:.0e}")
    } else {
        let digits = (2 - magnitude.log10().floor() as i32).clamp(0, 5) as usize;
        let text = format!("{value:.digits$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_ticks_around_the_values() {
        let axis = Axis::new(Scale::FromZero, [3.2, 96.0].into_iter()).unwrap();
        assert_eq!(axis.ticks, [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        let axis = Axis::new(Scale::Log, [0.002, 0.7, -1.0, 0.0].into_iter()).unwrap();
        assert_eq!(axis.ticks.iter().map(|&t| axis.tick_label(t)).collect::<Vec<_>>(), ["0.001", "0.01", "0.1", "1"]);
        let axis = Axis::new(Scale::Log, [17.5, 46.0].into_iter()).unwrap();
        assert_eq!(axis.ticks.iter().map(|&t| axis.tick_label(t)).collect::<Vec<_>>(), ["10", "20", "30", "50"]);
        let axis = Axis::new(Scale::Whole, [0.0, 3.0].into_iter()).unwrap();
        assert_eq!(axis.ticks, [0.0, 1.0, 2.0, 3.0]);
        assert!(Axis::new(Scale::Log, [0.0].into_iter()).is_none());
        assert_eq!([0.0, 12.50, 1234.0, 2e-5].map(number), ["0", "12.5", "1234", "2e-5"]);
    }
}
