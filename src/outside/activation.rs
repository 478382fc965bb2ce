//! Socket activation: listening sockets that a service manager bound and left open for this program
//! (sd_listen_fds(3)).

use std::ffi::OsString;

use rustix::io::FdFlags;

use crate::{
    accept::Handed,
    sys::{
        environment::{adopt_descriptor, take_env},
        process::own_pid,
    },
};

/// The variables that tell of the descriptors.
pub(super) const VARIABLES: [&str; 3] = [PID, COUNT, NAMES];
/// For which process they are.
const PID: &str = "LISTEN_PID";
/// How many there are.
const COUNT: &str = "LISTEN_FDS";
/// What the manager calls them, between colons.
const NAMES: &str = "LISTEN_FDNAMES";

/// The number of the first.
const FIRST: i32 = 3;

/// More than this are not looked at.
const MOST: i32 = 1024;

/// Takes what the manager left, if it is for this process. What is no listening socket stays open under
/// its number, as somebody else may know what it is for.
pub(super) fn take() -> Handed {
    let handed = Handed::default();
    let (Some(pid), Some(count)) = (std::env::var_os(PID), std::env::var_os(COUNT)) else {
        return handed;
    };
    // What is not for this process is not for those that it starts either, and does no harm.
    if number(&pid) != Some(own_pid()) {
        return handed;
    }
    let names = take_env(NAMES).map(OsString::into_string).and_then(Result::ok);
    take_env(PID);
    take_env(COUNT);
    match number(&count) {
        Some(count @ 0..=MOST) => adopt_all(&handed, count, names.as_deref()),
        _ => log::warn!("{COUNT} is ignored: it is {count:?}, and {MOST} are the most"),
    }
    handed
}

fn number(text: &std::ffi::OsStr) -> Option<i32> {
    text.to_str()?.parse().ok()
}

fn adopt_all(handed: &Handed, count: i32, names: Option<&str>) {
    let names: Vec<_> = names.map_or_else(Vec::new, |names| names.split(':').collect());
    for (number, at) in (FIRST..FIRST + count).zip(0..) {
        let name = names.get(at).filter(|name| !name.is_empty()).unwrap_or(&"unknown");
        if let Err(cause) = adopt(handed, number, name) {
            log::warn!("descriptor {number} ({name}), which was handed over, is not used: {cause}");
        }
    }
}

fn adopt(handed: &Handed, number: i32, name: &str) -> Result<(), String> {
    let fd = adopt_descriptor(number).map_err(|error| error.to_string())?;
    handed.add_managed(fd, number, name.into()).map_err(|(fd, cause)| {
        // As it was found.
        let _ = rustix::io::fcntl_setfd(&fd, FdFlags::empty());
        let _ = std::os::fd::IntoRawFd::into_raw_fd(fd);
        cause
    })
}
