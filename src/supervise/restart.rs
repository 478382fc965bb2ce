//! When a failed worker is replaced.

use std::time::Duration;

/// How replacements are spaced: the first at once, then a delay that doubles up to a cap.
#[derive(Clone, Debug)]
pub(crate) struct Restart {
    /// The delay before the second replacement in a row.
    pub(crate) first_delay: Duration,
    /// The longest delay.
    pub(crate) longest_delay: Duration,
    /// A worker that lived this long starts the count anew.
    pub(crate) healthy: Duration,
    /// Failures in a row of one slot after which a cluster that nobody serves gives up.
    pub(crate) attempts: u32,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(100),
            longest_delay: Duration::from_secs(10),
            healthy: Duration::from_secs(10),
            attempts: 3,
        }
    }
}

impl Restart {
    /// The delay after this many failures in a row.
    pub(crate) fn delay(&self, failures: u32) -> Duration {
        match failures.checked_sub(2) {
            None => Duration::ZERO,
            Some(doublings) => {
                let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
                self.first_delay.saturating_mul(factor).min(self.longest_delay)
            }
        }
    }
}
