//! The world around the program: its service manager, its container, the program it takes over from and
//! the one that takes over from it.
//!
//! What was left in the environment for the primary is taken on the main thread when the first cluster
//! starts; afterwards it is gone from there, so that neither workers nor anybody else takes it for theirs.

mod activation;
pub(crate) mod init;
mod notify;
mod predecessor;
mod successor;

use std::{
    ffi::OsStr,
    sync::{Arc, OnceLock},
};

pub(crate) use self::{
    notify::Notifier,
    predecessor::{Legacy, Predecessor},
    successor::Successor,
};
use crate::{accept::Handed, error::Result};

/// What a primary has to do with the world outside.
pub(crate) struct Outside {
    pub(crate) notifier: Notifier,
    /// Sockets that were bound before the program; the same for all its clusters.
    pub(crate) handed: Arc<Handed>,
    /// What the program before left to this one.
    pub(crate) legacy: Option<Legacy>,
}

impl Outside {
    /// What the environment has for a cluster. A manager and a program before are told by supervised
    /// clusters only, as those know when everything serves; the first one takes both.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Start`](crate::ErrorKind::Start): the program before hands over what this one does not
    /// understand.
    pub(crate) fn take(supervised: bool) -> Result<Self> {
        static HANDED: OnceLock<Arc<Handed>> = OnceLock::new();
        let handed = HANDED.get_or_init(|| Arc::new(activation::take())).clone();
        if !supervised {
            return Ok(Self { notifier: Notifier::default(), handed, legacy: None });
        }
        let legacy = Legacy::take(&handed)?;
        Ok(Self { notifier: Notifier::from_environment(), handed, legacy })
    }
}

/// Whether a variable is for the primary alone. It is gone from the environment, unless threads were
/// running when it was taken.
pub(crate) fn is_for_the_primary(variable: &OsStr) -> bool {
    let names = [activation::VARIABLES.as_slice(), &[successor::MARKER], notify::taken()];
    names.into_iter().flatten().any(|name| variable == *name)
}

/// Whether a variable was meant for this very process by whoever started it: not for a copy of the program that
/// serves somebody else.
#[cfg(feature = "compare")]
pub(crate) fn is_for_this_process(variable: &OsStr) -> bool {
    is_for_the_primary(variable) || notify::VARIABLES.iter().any(|name| variable == *name)
}
