//! Which arms are the best, when several are as good.

use crate::{plan::POLICIES, section::Decision};

/// An arm is as good as the best one up to here: less is noise on a shared machine.
const AS_GOOD: f64 = 1.1;

/// The best arms of an experiment that crosses modes and policies.
pub(crate) struct Best<'a> {
    /// What the best one has.
    pub(crate) value: f64,
    /// `mode/policy` of it and of all that are as good.
    arms: Vec<&'a str>,
}

/// The arms with the least of something: a time, a cost.
pub(crate) fn least<'a>(found: impl Iterator<Item = (f64, &'a str)>) -> Best<'a> {
    let mut found: Vec<_> = found.filter(|(value, _)| !value.is_nan()).collect();
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    let value = found.first().map_or(f64::NAN, |(value, _)| *value);
    let as_good = found.iter().take_while(|(other, _)| *other <= value * AS_GOOD);
    Best { value, arms: as_good.map(|(_, arm)| *arm).collect() }
}

/// The arms with the most of something: answers.
pub(crate) fn most<'a>(found: impl Iterator<Item = (f64, &'a str)>) -> Best<'a> {
    let best = least(found.map(|(value, arm)| (1.0 / value, arm)));
    Best { value: 1.0 / best.value, ..best }
}

impl Best<'_> {
    pub(crate) fn decision(&self, need: &str, why: &str) -> Decision {
        let others = match self.arms.len() {
            0 | 1 => String::new(),
            count => format!("; {count} arms are within {:.0} % of it", (AS_GOOD - 1.0) * 100.0),
        };
        Decision {
            need: need.into(),
            mode: self.mode(),
            scheduling: self.scheduling(),
            why: format!("{why}{others}"),
        }
    }

    fn mode(&self) -> String {
        let modes: Vec<_> =
            self.arms.iter().filter_map(|arm| Some(arm.split_once('/')?.0)).collect();
        match modes.split_first() {
            None => "-".into(),
            Some((first, rest)) if rest.iter().all(|mode| mode == first) => (*first).into(),
            Some(_) => "either".into(),
        }
    }

    /// Every policy that is among the best with some mode.
    fn scheduling(&self) -> String {
        let has = |name: &String| {
            self.arms
                .iter()
                .any(|arm| arm.split_once('/').is_some_and(|(_, policy)| policy == name))
        };
        let names: Vec<_> = POLICIES.iter().map(ToString::to_string).filter(has).collect();
        match names.len() {
            0 => "-".into(),
            count if count == POLICIES.len() => "any".into(),
            _ => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        }
    }
}
