//! Chance that a seed determines.

use crate::dice::Dice;

pub struct Chance(Dice);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(Dice::new(seed))
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        (self.0.roll() * bound as f64) as u64
    }

    pub fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}
