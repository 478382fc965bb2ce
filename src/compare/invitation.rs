//! Finding out that this process is an arm of a comparison.
//!
//! The marker is read once, checked as that of a worker is, and removed from the environment. One that is not for this
//! process makes it no arm.

use std::sync::OnceLock;

use parking_lot::Mutex;

use super::line::Line;
use crate::backend::process::claim;

/// The variable that makes a process an arm.
pub(super) const MARKER: &str = "BIMODAL_COMPARE";

/// The right to be an arm of the comparison of this name, once.
struct Invitation {
    name: String,
    line: Mutex<Option<Line>>,
}

/// The name of the comparison that this process was started for, if it is an arm.
///
/// The first call reads the environment; it must be made before other threads run.
pub(super) fn invited_to() -> Option<&'static str> {
    invited().map(|invited| invited.name.as_str())
}

/// The line to the comparing program, once, if this process is an arm of the comparison of this name.
pub(super) fn accept(name: &str) -> Option<Line> {
    invited().filter(|invited| invited.name == name)?.line.lock().take()
}

fn invited() -> Option<&'static Invitation> {
    static INVITED: OnceLock<Option<Invitation>> = OnceLock::new();
    let look = || {
        let (marker, channel) = claim(MARKER)?;
        Some(Invitation { name: marker.name, line: Mutex::new(Some(Line::new(channel))) })
    };
    INVITED.get_or_init(look).as_ref()
}
