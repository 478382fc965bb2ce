//! Opening an LMDB environment.

#![allow(unsafe_code)]

use std::path::Path;

use heed::{Env, EnvFlags, EnvOpenOptions, Result};

/// Opens the environment in a directory. Without `sync` the system, not each commit, decides when what was
/// written gets to the disk: it is safe from the death of any process, not from that of the machine.
///
/// # Errors
///
/// As LMDB has it; `EnvAlreadyOpened` when this process has it open.
pub(crate) fn open(options: &EnvOpenOptions, directory: &Path, sync: bool) -> Result<Env> {
    let mut options = options.clone();
    if !sync {
        // SAFETY: what the flag puts at risk is the file's content after the machine has died, which is
        // written in order by any sane file system and checked by LMDB; no lock and no mapping depends on it.
        unsafe { options.flags(EnvFlags::NO_SYNC) };
    }
    // SAFETY: the map is of a file that only LMDB changes, under its locks, which are kept (no NO_LOCK).
    // heed opens an environment once per process. Whoever may write in the directory could truncate the
    // file; that is for the directory's permissions to prevent, as its documentation says.
    unsafe { options.open(directory) }
}
