//! Medians, and how sure a difference is.

use crate::dice::Dice;

/// A value with the interval that holds it in 95 % of such runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interval {
    pub(crate) value: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Interval {
    /// A ratio as a change in percent: `+3.1 % [-1.0, +7.4]`.
    pub(crate) fn change(&self) -> String {
        let percent = |ratio: f64| (ratio - 1.0) * 100.0;
        let (value, low, high) = (percent(self.value), percent(self.low), percent(self.high));
        format!("{value:+.1} % [{low:+.1}, {high:+.1}]")
    }

    /// A ratio as such: `1.48 [1.42, 1.53]`.
    pub(crate) fn times(&self) -> String {
        format!("{:.2} [{:.2}, {:.2}]", self.value, self.low, self.high)
    }

    /// Whether it is at most this; `None` when the limit lies in the interval.
    pub(crate) fn at_most(&self, limit: f64) -> Option<bool> {
        if self.low <= limit && self.high > limit { None } else { Some(self.high <= limit) }
    }

    /// Whether a ratio differs from 1 by at most this; `None` when the interval reaches both inside and outside.
    pub(crate) fn within(&self, limit: f64) -> Option<bool> {
        let (least, most) = (1.0 - limit, 1.0 + limit);
        let inside = self.low >= least && self.high <= most;
        let outside = self.low > most || self.high < least;
        (inside || outside).then_some(inside)
    }
}

/// How often samples are drawn again.
const RESAMPLES: usize = 2_000;

/// Where every resampling begins, so that the same results give the same report.
const SEED: u64 = 0x5eed_0001;

/// The middle one; the mean of the middle two. NaN of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (count, middle) if count % 2 == 1 => sorted[middle],
        (_, middle) => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The median with the interval of the median of samples drawn again (percentile bootstrap).
pub(crate) fn interval(values: &[f64]) -> Interval {
    let mut random = Random::new(SEED);
    let again = (0..RESAMPLES).map(|_| median(&random.draw(values)));
    Interval::around(median(values), again.collect())
}

/// How many times `a` is `b`: the Hodges-Lehmann estimate (the median of all ratios of one of `a` and one of `b`), with the
/// interval that it has in samples drawn again.
pub(crate) fn ratio(a: &[f64], b: &[f64]) -> Interval {
    let mut random = Random::new(SEED);
    let again = (0..RESAMPLES).map(|_| hodges_lehmann(&random.draw(a), &random.draw(b)));
    Interval::around(hodges_lehmann(a, b), again.collect())
}

fn hodges_lehmann(a: &[f64], b: &[f64]) -> f64 {
    let ratios: Vec<_> = a.iter().flat_map(|a| b.iter().map(move |b| a / b)).collect();
    median(&ratios)
}

impl Interval {
    fn around(value: f64, mut drawn: Vec<f64>) -> Self {
        drawn.sort_by(f64::total_cmp);
        let at = |part: f64| drawn[((drawn.len() - 1) as f64 * part).round() as usize];
        Self { value, low: at(0.025), high: at(0.975) }
    }
}

/// The crate's dice: numbers that a seed determines.
pub(crate) struct Random(Dice);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Dice::new(seed))
    }

    /// At least 0 and below 1.
    pub(crate) fn unit(&mut self) -> f64 {
        self.0.roll()
    }

    /// Below this.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.unit() * bound as f64) as usize
    }

    /// As many values, drawn with replacement.
    fn draw(&mut self, values: &[f64]) -> Vec<f64> {
        values.iter().map(|_| values[self.below(values.len())]).collect()
    }
}
