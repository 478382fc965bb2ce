//! Chance that can be repeated: jitter from a seed.

use std::time::Duration;

/// A sequence of numbers that a seed determines: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 up to, but without, 1.
    pub(crate) fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `time`, and up to `share` of it more.
    pub(crate) fn stretch(&mut self, time: Duration, share: f64) -> Duration {
        time.saturating_add(
            Duration::try_from_secs_f64(time.as_secs_f64() * share * self.roll()).unwrap_or(time),
        )
    }

    /// `count`, and up to `share` of it more.
    pub(crate) fn stretch_count(&mut self, count: u64, share: f64) -> u64 {
        count.saturating_add((count as f64 * share * self.roll()) as u64)
    }
}
