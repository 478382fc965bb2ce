//! The program that takes over: this program's file as it is now on disk, started as a new primary with
//! the listening sockets of this one.
//!
//! On the primary's loop. The two talk over a packet channel: everything that the new one has to listen on
//! is in it before it starts; it says when everything serves, and is told that it is on its own. It is
//! nobody's worker and is not tied to this process's life. Until it is told, its failure costs nothing.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    future::Future as _,
    io::{self, IoSlice},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    path::Path,
    pin::Pin,
    process::{Child, Stdio},
    task::{Context, Poll},
    time::Duration,
};

use mio::Interest;

use crate::{
    event_loop::{Sleep, Source, sleep},
    sys::{
        channel::{receive_packet, send_packet, seqpacket_pair},
        process::{SIGKILL, Spawn, own_pid, pidfd, spawn},
    },
};

/// The variable that makes a program the successor of another: `VERSION:DESCRIPTOR:PID`.
pub(super) const MARKER: &str = "BIMODAL_UPGRADE";
/// The version of what the two say to each other.
pub(super) const VERSION: u32 = 1;

/// What the packets are, by their first byte: sockets and their letter, the end of the sockets, everything
/// serves, it is yours.
pub(super) const SOCKETS: u8 = b'S';
pub(super) const END: u8 = b'E';
pub(super) const READY: &[u8] = b"R";
pub(super) const YOURS: &[u8] = b"Y";

/// A program that was started to take over.
#[derive(Debug)]
pub(crate) struct Successor {
    /// Killed and reaped when this is dropped, unless it was let go.
    child: Option<Child>,
    channel: Source<OwnedFd>,
    /// Readable when it has ended.
    end: Source<OwnedFd>,
    alarm: Pin<Box<Sleep>>,
    limit: Duration,
    /// It was killed for this.
    cause: Option<String>,
}

impl Successor {
    /// Starts `program` with the arguments of this one and these variables besides, and gives it the
    /// letters. It has `limit` to get ready.
    pub(crate) fn start(
        program: &Path,
        variables: Vec<(OsString, OsString)>,
        letters: Vec<(Vec<u8>, Vec<OwnedFd>)>,
        limit: Duration,
    ) -> io::Result<Self> {
        let (ours, theirs) = seqpacket_pair()?;
        put_letters(&ours, letters)?;
        send_packet(ours.as_fd(), &[IoSlice::new(&[END])], &[])?;
        let marker = format!("{VERSION}:{}:{}", theirs.as_raw_fd(), own_pid());
        let inherited = std::env::vars_os().filter(|(name, _)| !super::is_for_the_primary(name));
        let marker = [(OsString::from(MARKER), OsString::from(marker))];
        let env: BTreeMap<_, _> = inherited.chain(variables).chain(marker).collect();
        let args: Vec<_> = std::env::args_os().skip(1).collect();
        let mut child = spawn(Spawn {
            program,
            args: &args,
            env: &env,
            cwd: None,
            uid: None,
            gid: None,
            own_group: false,
            stdio: [Stdio::inherit(), Stdio::inherit(), Stdio::inherit()],
            inherit: theirs.as_fd(),
            die_with: false,
        })?;
        let watched = watch(&child, ours).inspect_err(|_| bury(&mut child));
        let (channel, end) = watched?;
        let alarm = Box::pin(sleep(limit));
        Ok(Self { child: Some(child), channel, end, alarm, limit, cause: None })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Whether everything serves there, or why it never will; then it has ended.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        if self.cause.is_none() {
            match self.poll_channel(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(cause)) => self.give_up(cause),
                Poll::Pending => {}
            }
        }
        if self.cause.is_none() && self.alarm.as_mut().poll(cx).is_ready() {
            self.give_up(format!("it was not ready within {:?}", self.limit));
        }
        if self.end.poll_readable(cx).is_pending() {
            return Poll::Pending;
        }
        match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(None)) => {
                // Flags start as ready: it runs.
                self.end.clear_readable();
                let _ = self.end.poll_readable(cx);
                Poll::Pending
            }
            ended => Poll::Ready(Err(self.why(ended))),
        }
    }

    fn poll_channel(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        let mut buffer = [0; 16];
        let receive = |channel: &OwnedFd| {
            let received = receive_packet(channel.as_fd(), &mut buffer)?;
            Ok(received.is_some_and(|packet| &buffer[..packet.length] == READY))
        };
        self.channel.poll_read_io(cx, receive).map(|received| match received {
            Ok(true) => Ok(()),
            // Its end tells more, if it is its end.
            Ok(false) => Err("it does not take over".into()),
            Err(error) => Err(format!("its channel failed: {error}")),
        })
    }

    fn give_up(&mut self, cause: String) {
        self.cause = Some(cause);
        if let Some(child) = &mut self.child {
            // One that has ended needs none.
            let _ = child.kill();
        }
    }

    fn why(&mut self, ended: Option<io::Result<Option<std::process::ExitStatus>>>) -> String {
        self.child = None;
        match (self.cause.take(), ended) {
            (Some(cause), Some(Ok(Some(status)))) if status.signal() == Some(SIGKILL) => cause,
            (_, Some(Ok(Some(status)))) => format!("it ended before it was ready: {status}"),
            (cause, _) => cause.unwrap_or_else(|| "it is gone".into()),
        }
    }

    /// Gives it the letters of what was opened since it was started, tells it that it is on its own, and
    /// leaves it so.
    pub(crate) fn let_go(mut self, late: io::Result<Vec<(Vec<u8>, Vec<OwnedFd>)>>) {
        if let Err(error) = late.and_then(|late| put_letters(self.channel.get_ref(), late)) {
            log::warn!("sockets opened during the upgrade do not go along: {error}");
        }
        // It learns the same from the end of the channel.
        let _ = send_packet(self.channel.get_ref().as_fd(), &[IoSlice::new(YOURS)], &[]);
        self.child = None;
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            bury(child);
        }
    }
}

fn watch(child: &Child, channel: OwnedFd) -> io::Result<(Source<OwnedFd>, Source<OwnedFd>)> {
    let end = Source::new(pidfd(child.id().cast_signed())?, Interest::READABLE)?;
    Ok((Source::new(channel, Interest::READABLE)?, end))
}

/// Kills and reaps. A killed process ends at once.
fn bury(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn put_letters(channel: &OwnedFd, letters: Vec<(Vec<u8>, Vec<OwnedFd>)>) -> io::Result<()> {
    for (letter, sockets) in letters {
        let parts = [IoSlice::new(&[SOCKETS]), IoSlice::new(&letter)];
        let sockets: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
        send_packet(channel.as_fd(), &parts, &sockets)?;
    }
    Ok(())
}
