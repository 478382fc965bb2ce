//! The program that this one takes over from; `successor` has the other side.
//!
//! Its sockets are there before anything else starts. When everything serves here it is told so, and it
//! leaves; if it is gone before, this program is on its own all the same.

use std::{
    ffi::OsString,
    io::{self, IoSlice},
    os::fd::{AsFd as _, IntoRawFd as _, OwnedFd},
    task::{Context, Poll, ready},
};

use mio::Interest;

use super::successor::{END, MARKER, READY, SOCKETS, VERSION};
use crate::{
    accept::Handed,
    error::{Error, ErrorKind, Result},
    event_loop::Source,
    sys::{
        channel::{is_seqpacket, peer_pid, receive_packet, send_packet},
        environment::{adopt_descriptor, take_env},
    },
};

/// The largest letter.
const LETTER: usize = 64 << 10;

/// What the program before left, not watched yet.
#[derive(Debug)]
pub(crate) struct Legacy(OwnedFd);

impl Legacy {
    /// Takes what the program before left for this one, if there is one. A marker that is not for this process
    /// is ignored, which is logged.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Start`]: it is another version's, or broken. The program before goes on.
    pub(super) fn take(handed: &Handed) -> Result<Option<Self>> {
        let Some(marker) = take_env(MARKER) else { return Ok(None) };
        let (version, channel) = match invitation(marker) {
            Ok(found) => found,
            Err(cause) => {
                log::warn!("{MARKER} is ignored: {cause}");
                return Ok(None);
            }
        };
        let refused = |cause| {
            let text = format!("cannot take over from the program before: {cause}");
            Error::new(ErrorKind::Start, text)
        };
        if version != VERSION {
            return Err(refused(format!("it speaks version {version}, this program {VERSION}")));
        }
        receive_all(&channel, handed).map_err(refused)?;
        Ok(Some(Self(channel)))
    }
}

impl Legacy {
    /// The process of the program before; `None` where it cannot be seen from here.
    pub(crate) fn process(&self) -> Option<i32> {
        peer_pid(self.0.as_fd()).ok().filter(|pid| *pid != 0)
    }
}

/// The program before, until it has let go.
#[derive(Debug)]
pub(crate) struct Predecessor {
    channel: Source<OwnedFd>,
    told: bool,
}

impl Predecessor {
    /// Watches for its end, on the current loop.
    pub(crate) fn new(Legacy(channel): Legacy) -> io::Result<Self> {
        Ok(Self { channel: Source::new(channel, Interest::READABLE)?, told: false })
    }

    /// Tells it, once, that everything serves here.
    pub(crate) fn tell_ready(&mut self) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let told = send_packet(self.channel.get_ref().as_fd(), &[IoSlice::new(READY)], &[]);
        if let Err(error) = told {
            log::debug!("the program before is not there any more: {error}");
        }
    }

    /// Takes in what it opened late, and says when it has let go or is gone.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>, handed: &Handed) -> Poll<()> {
        ready!(self.channel.poll_readable(cx));
        let mut buffer = vec![0; LETTER];
        loop {
            let receive = |fd: &OwnedFd| receive_packet(fd.as_fd(), &mut buffer);
            let packet = match ready!(self.channel.poll_read_io(cx, receive)) {
                Ok(Some(packet)) if !packet.truncated && !packet.descriptors_lost => packet,
                _ => return Poll::Ready(()),
            };
            match buffer[..packet.length].split_first() {
                Some((&SOCKETS, letter)) => {
                    if let Err(cause) = handed.receive(letter, packet.descriptors) {
                        log::warn!("sockets of the program before are lost: {cause}");
                    }
                }
                // There is one other thing that it says, and its end means the same.
                _ => return Poll::Ready(()),
            }
        }
    }
}

/// The version and the channel that a marker names, if it is for this process.
fn invitation(marker: OsString) -> Result<(u32, OwnedFd), String> {
    let (version, number, maker) = parse(&marker).ok_or("it is malformed")?;
    let channel = adopt_descriptor(number).map_err(|error| error.to_string())?;
    let made_by_it = peer_pid(channel.as_fd()).is_ok_and(|peer| peer == maker || peer == 0);
    if is_seqpacket(channel.as_fd()) && made_by_it {
        return Ok((version, channel));
    }
    // It is somebody else's: leave it open.
    let _ = channel.into_raw_fd();
    Err(format!("its descriptor is no channel of process {maker}"))
}

fn parse(marker: &OsString) -> Option<(u32, i32, i32)> {
    let mut fields = marker.to_str()?.split(':');
    let mut next = || fields.next();
    let found = (next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?);
    next().is_none().then_some(found)
}

/// Takes in everything up to the end of the sockets, which was sent before this program was started.
fn receive_all(channel: &OwnedFd, handed: &Handed) -> Result<(), String> {
    let mut buffer = vec![0; LETTER];
    loop {
        let received = receive_packet(channel.as_fd(), &mut buffer).map_err(|e| e.to_string())?;
        let packet = received.ok_or("it is gone")?;
        if packet.truncated || packet.descriptors_lost {
            return Err("a letter did not arrive whole; are too few descriptors allowed?".into());
        }
        match buffer[..packet.length].split_first() {
            Some((&SOCKETS, letter)) => handed.receive(letter, packet.descriptors)?,
            Some((&END, _)) => return Ok(()),
            _ => return Err("it said something unknown".into()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    use rustix::io::{FdFlags, fcntl_setfd};

    use crate::sys::{channel::seqpacket_pair, process::own_pid};

    fn marker(fd: &OwnedFd, maker: i32) -> OsString {
        fcntl_setfd(fd, FdFlags::empty()).unwrap();
        format!("1:{}:{maker}", fd.as_raw_fd()).into()
    }

    #[test]
    fn hostile_markers_are_refused() {
        for bad in ["", "1", "1:2", "1:x:3", "1:2:3:4", "-1:5:3", "1:0:3", "1:99999:1"] {
            assert!(invitation(bad.into()).is_err(), "{bad:?}");
        }
        let (one, two) = seqpacket_pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap().into();
        assert!(invitation(marker(&one, own_pid() + 1)).is_err());
        assert!(invitation(marker(&file, own_pid())).is_err());
        let (version, found) = invitation(marker(&two, own_pid())).unwrap();
        assert_eq!((version, found.into_raw_fd()), (1, two.into_raw_fd()));
        // Refused descriptors stay open.
        assert!(rustix::io::fcntl_getfd(&one).is_ok() && rustix::io::fcntl_getfd(&file).is_ok());
    }

    #[test]
    fn nonsense_on_the_channel_is_an_error() {
        for nonsense in [&b"X"[..], b"S", b"Snonsense"] {
            let (ours, theirs) = seqpacket_pair().unwrap();
            send_packet(ours.as_fd(), &[IoSlice::new(nonsense)], &[]).unwrap();
            assert!(receive_all(&theirs, &Handed::default()).is_err());
        }
        let (ours, theirs) = seqpacket_pair().unwrap();
        assert!(receive_all(&theirs, &Handed::default()).is_err(), "nothing was sent");
        send_packet(ours.as_fd(), &[IoSlice::new(&[END])], &[]).unwrap();
        assert!(receive_all(&theirs, &Handed::default()).is_ok());
    }
}
