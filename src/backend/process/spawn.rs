//! How a worker process is started: which program, with what around it, and the marker that tells it
//! whose worker it is.
//!
//! Runs in the primary, on the thread that lives as long as the cluster: the kernel kills a worker when
//! the *thread* that forked it ends. The program's path is read once, when the cluster is built; a worker that is
//! started later runs whatever file is there then, which is how a reload brings new code.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use crate::{
    backend::{Outfit, Stream},
    error::{Context, ErrorKind, Result},
    id::WorkerId,
    sys::process::{self, Spawn},
    wire,
};

/// The variable that makes a process a worker.
pub(crate) const MARKER: &str = "BIMODAL_WORKER";

/// The file that this process runs, by the name it was called by if that still leads to it: a link to the
/// current version is followed anew each time.
///
/// # Errors
///
/// [`ErrorKind::Start`]: the system does not say.
pub(crate) fn own_program() -> Result<PathBuf> {
    let exec = std::env::current_exe()
        .context(ErrorKind::Start, || "find the program that workers run".into())?;
    let exec = present(exec);
    Ok(std::env::args_os()
        .next()
        .and_then(|called| as_called(called.into(), &exec))
        .unwrap_or(exec))
}

/// The absolute path of how the program was called, unless it was looked up or is something else.
fn as_called(called: PathBuf, exec: &Path) -> Option<PathBuf> {
    let is_path = called.as_os_str().as_bytes().contains(&b'/');
    let path = std::path::absolute(called).ok().filter(|_| is_path)?;
    (path.canonicalize().ok()? == exec.canonicalize().ok()?).then_some(path)
}

/// Starts a worker that inherits `end` and finds itself invited by `marker`.
pub(super) fn spawn(outfit: Outfit, marker: &Marker, end: BorrowedFd<'_>) -> io::Result<Child> {
    let mut vars = outfit.vars;
    vars.insert(MARKER.into(), marker.to_text().into());
    process::spawn(Spawn {
        program: &outfit.exec,
        args: &outfit.args,
        env: &vars,
        cwd: outfit.cwd.as_deref(),
        uid: outfit.uid,
        gid: outfit.gid,
        own_group: outfit.own_group,
        stdio: outfit.stdio.map(open),
        inherit: end.as_fd(),
        die_with: true,
    })
}

fn open(stream: Stream) -> Stdio {
    match stream {
        Stream::Inherit => Stdio::inherit(),
        Stream::Null => Stdio::null(),
        Stream::Pipe(end) => end.into(),
    }
}

/// The file to run where Linux says that it was deleted: the one that has taken its place, if any.
fn present(exec: PathBuf) -> PathBuf {
    let stripped = exec.as_os_str().as_bytes().strip_suffix(b" (deleted)");
    let replaced = stripped.map(|path| PathBuf::from(OsStr::from_bytes(path)));
    match replaced {
        Some(replaced) if !exec.exists() && replaced.exists() => replaced,
        _ => exec,
    }
}

/// What a worker is told by its environment: `VERSION:NAME:WORKER:DESCRIPTOR:PRIMARY`, the name in
/// hexadecimal. The form is the same in every version, so that a worker knows whose it is before it
/// knows whether it understands its primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// The version of the protocol that the primary speaks.
    pub(super) version: u16,
    /// The cluster's name.
    pub(crate) name: String,
    /// Which of them; of those that `compare` starts, the arm's number.
    pub(crate) worker: WorkerId,
    /// The number of the inherited descriptor.
    pub(super) descriptor: i32,
    /// The primary's process id.
    pub(super) primary: i32,
}

impl Marker {
    /// The marker of a worker that this process starts.
    pub(crate) fn new(name: &str, worker: WorkerId, end: BorrowedFd<'_>) -> Self {
        let (descriptor, primary) = (end.as_raw_fd(), process::own_pid());
        Self { version: wire::VERSION, name: name.into(), worker, descriptor, primary }
    }

    pub(crate) fn to_text(&self) -> String {
        let name: String = self.name.bytes().map(|byte| format!("{byte:02x}")).collect();
        let Self { version, worker, descriptor, primary, .. } = self;
        format!("{version}:{name}:{worker}:{descriptor}:{primary}")
    }

    /// Reads what may have been written by anybody; the error says what is wrong with it.
    pub(super) fn parse(text: OsString) -> Result<Self, &'static str> {
        let text = String::from_utf8(text.into_vec()).map_err(|_| "it is not UTF-8")?;
        let fields: Vec<&str> = text.split(':').collect();
        let &[version, name, worker, descriptor, primary] = &fields[..] else {
            return Err("it does not have five fields");
        };
        Ok(Self {
            version: number(version).ok_or("its version is no number")?,
            name: from_hex(name).ok_or("its name is malformed")?,
            worker: WorkerId::new(number(worker).ok_or("its worker is no number")?),
            descriptor: number(descriptor).ok_or("its descriptor is no number")?,
            primary: number(primary).ok_or("its primary is no number")?,
        })
    }
}

/// A number above 0, written with digits alone.
fn number<T: std::str::FromStr + Default + PartialOrd>(text: &str) -> Option<T> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| plain && *number > T::default())
}

fn from_hex(text: &str) -> Option<String> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| Some(digit.to_digit(16)? as u8)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    let bytes = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect::<Vec<_>>();
    String::from_utf8(bytes).ok().filter(|name| name.len() <= wire::NAME_LIMIT)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn marker(name: &str) -> Marker {
        let worker = WorkerId::new(7);
        Marker { version: wire::VERSION, name: name.into(), worker, descriptor: 5, primary: 123 }
    }

    #[test]
    fn a_marker_survives_a_round_trip() {
        for name in ["", "web", "a:b=c", "größe\n"] {
            assert_eq!(Marker::parse(marker(name).to_text().into()), Ok(marker(name)));
        }
        assert_eq!(marker("web").to_text(), format!("{}:776562:7:5:123", wire::VERSION));
        let other = Marker { version: wire::VERSION + 1, ..marker("web") };
        assert_eq!(Marker::parse(other.to_text().into()), Ok(other));
    }

    #[test]
    fn hostile_markers_are_refused() {
        let version = wire::VERSION.to_string();
        let fields = [version.as_str(), "776562", "7", "5", "123"];
        let with = |at: usize, field: &str| {
            let mut fields = fields;
            fields[at] = field;
            Marker::parse(fields.join(":").into())
        };
        assert!(with(0, &version).is_ok());
        let numbers = ["", "-1", "+1", " 1", "0", "x", "99999999999999999999999"];
        for at in [0, 2, 3, 4] {
            for bad in numbers {
                assert!(with(at, bad).is_err(), "field {at}: {bad:?}");
            }
        }
        for bad in ["7", "zz", "ff", "é", "7 "] {
            assert!(with(1, bad).is_err(), "{bad:?}");
        }
        assert!(with(1, &"61".repeat(wire::NAME_LIMIT + 1)).is_err());
        for bad in ["", ":", "2:776562:7:5", "2:776562:7:5:123:9"] {
            assert!(Marker::parse(bad.into()).is_err(), "{bad:?}");
        }
        assert!(Marker::parse(OsString::from_vec(vec![0xff])).is_err());
    }

    #[test]
    fn the_own_program_is_a_file() {
        assert!(own_program().unwrap().is_file());
    }

    #[test]
    fn a_link_to_the_program_is_kept() {
        let exec = std::env::current_exe().unwrap();
        let link = std::env::temp_dir().join(format!("bimodal-{}-link", std::process::id()));
        std::os::unix::fs::symlink(&exec, &link).unwrap();
        assert_eq!(as_called(link.clone(), &exec), Some(link.clone()));
        std::fs::remove_file(&link).unwrap();
        for other in ["sh".into(), "/bin/sh".into(), link] {
            assert_eq!(as_called(other, &exec), None);
        }
    }

    #[test]
    fn a_replaced_program_is_found_under_its_name() {
        let real = std::env::current_exe().unwrap();
        let mut deleted = real.clone().into_os_string();
        deleted.push(" (deleted)");
        assert_eq!(present(deleted.into()), real);
        assert_eq!(present(real.clone()), real);
        let gone = PathBuf::from("/nonexistent/program (deleted)");
        assert_eq!(present(gone.clone()), gone);
    }
}
