//! The crate's one error: opaque, with a kind to branch on and a text that names cause and remedy.

use std::{any::Any, error::Error as StdError, fmt, io, sync::PoisonError};

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, for code that has to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is missing, malformed, or cannot hold in the chosen mode.
    Setting,
    /// The operating system refused something; [`Error::io_kind`] says what.
    Io,
    /// An address could not be listened on.
    Listen,
    /// A worker could not be started, or none got ready and stayed.
    Start,
    /// Workers failed more often than [`Restart`](crate::Restart) allows.
    Exhausted,
    /// The other side is gone: the worker has ended, or the primary has.
    Closed,
    /// The worker is leaving and takes nothing new.
    Disconnecting,
    /// A queue is at its bound; nothing was queued.
    Full,
    /// A message is larger than the cluster's limit.
    TooLarge,
    /// An index lies outside of what it is an index of.
    Range,
    /// A message holds another type than the one asked for.
    Type,
    /// A message could not be encoded or decoded.
    Codec,
    /// The peer of a channel did not keep to the protocol.
    Protocol,
    /// Who held a lock ended or panicked without having released it.
    Poisoned,
    /// A worker's body, a request handler or a task panicked.
    Panic,
    /// A task was cancelled before it began.
    Cancelled,
    /// A task had not begun by its deadline.
    Expired,
    /// A worker's body returned this error.
    Body,
}

/// An error of this crate.
///
/// Its text is one sentence that names what failed, the cause and, where there is one, the remedy.
pub struct Error {
    kind: ErrorKind,
    text: String,
    exit_code: Option<u8>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error without an underlying cause.
    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), exit_code: None, source: None }
    }

    /// An error caused by another one.
    pub(crate) fn caused(
        kind: ErrorKind,
        text: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { kind, text: text.into(), exit_code: None, source: Some(source.into()) }
    }

    /// What a panic said.
    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self::new(ErrorKind::Panic, format!("panicked: {}", text.unwrap_or("(no text)")))
    }

    /// The same error, of a program whose workers have said with which status it should end.
    pub(crate) fn with_exit_code(self, code: i32) -> Self {
        Self { exit_code: u8::try_from(code).ok(), ..self }
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The kind of the operating system's error beneath, if that is the cause.
    #[must_use]
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        self.io_source().map(io::Error::kind)
    }

    /// The operating system's error number beneath (`errno`), if that is the cause.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.io_source().and_then(io::Error::raw_os_error)
    }

    /// The exit status with which a program that ends by this error tells an outer supervisor what it
    /// was, after sysexits.h, whose names systemd shows, too (systemd.exec(5)):
    ///
    /// | status | | kind |
    /// |---|---|---|
    /// | 69 | `EX_UNAVAILABLE` | [`Start`](ErrorKind::Start): no worker serves; trying again later may help |
    /// | 70 | `EX_SOFTWARE` | [`Exhausted`](ErrorKind::Exhausted), and whatever is not named here |
    /// | 71 | `EX_OSERR` | [`Io`](ErrorKind::Io), [`Listen`](ErrorKind::Listen) |
    /// | 76 | `EX_PROTOCOL` | [`Protocol`](ErrorKind::Protocol) |
    /// | 78 | `EX_CONFIG` | [`Setting`](ErrorKind::Setting): trying again does not help (systemd: `RestartPreventExitStatus=78`) |
    ///
    /// When no worker is left because each ended with the [code that means](crate::Restart::final_code) "do not
    /// restart me", it is the last one's code.
    ///
    /// A `main` that returns the error instead ends with 1, as every Rust program does.
    ///
    /// ```no_run
    /// # async fn serve(worker: bimodal::Worker) { worker.draining().await }
    /// use std::process::ExitCode;
    ///
    /// fn main() -> ExitCode {
    ///     match bimodal::Cluster::builder(bimodal::Mode::Process).run(serve) {
    ///         Ok(_) => ExitCode::SUCCESS,
    ///         Err(error) => {
    ///             eprintln!("{error}");
    ///             error.exit_code().into()
    ///         }
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.exit_code.unwrap_or(match self.kind {
            ErrorKind::Start => 69,
            ErrorKind::Io | ErrorKind::Listen => 71,
            ErrorKind::Protocol => 76,
            ErrorKind::Setting => 78,
            _ => 70,
        })
    }

    fn io_source(&self) -> Option<&io::Error> {
        self.source.as_ref().and_then(|source| source.downcast_ref::<io::Error>())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn StdError + 'static))
    }
}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        Self {
            kind: ErrorKind::Io,
            text: "the operating system refused".into(),
            exit_code: None,
            source: Some(source.into()),
        }
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// The lock that the error holds is released.
impl<T> From<PoisonError<T>> for Error {
    fn from(_: PoisonError<T>) -> Self {
        let text =
            "who held the lock ended or panicked: repair what it guards, then call `clear_poison`";
        Self::new(ErrorKind::Poisoned, text)
    }
}

/// Gives an operating system's error the name of what was attempted.
pub(crate) trait Context<T> {
    /// Wraps the error with `text`, as an error of `kind`.
    fn context(self, kind: ErrorKind, text: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Context<T> for Result<T, E> {
    fn context(self, kind: ErrorKind, text: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::caused(kind, text(), source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outer_supervisor_can_tell_what_a_restart_may_help_against() {
        let code = |kind| Error::new(kind, "").exit_code();
        assert_eq!(code(ErrorKind::Start), 69);
        assert_eq!(code(ErrorKind::Exhausted), 70);
        assert_eq!(code(ErrorKind::Body), 70);
        assert_eq!(code(ErrorKind::Listen), 71);
        assert_eq!(code(ErrorKind::Protocol), 76);
        assert_eq!(code(ErrorKind::Setting), 78);
    }
}
