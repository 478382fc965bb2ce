//! Between the frames of the channel and what the primary and a worker say to each other. Pure; both
//! sides use it.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
};

use crate::{
    accept::{SocketOptions, Wanted},
    config::Address,
    error::{Error, ErrorKind, Result},
    id::{ConnectionId, ListenerId},
    wire::{self, Frame, MAX_IDS},
    worker::Note,
};

/// The frames of a note. `Refused` becomes its id alone: the primary has the socket.
pub(super) fn of_note(note: Note) -> Result<Vec<Frame>> {
    Ok(vec![match note {
        Note::Adopted { ids, .. } => {
            let numbers: Vec<u64> = ids.into_iter().map(|ConnectionId(id)| id).collect();
            return Ok(numbers
                .chunks(MAX_IDS)
                .map(|ids| Frame::Adopted { ids: ids.into() })
                .collect());
        }
        Note::Refused(offer) => Frame::Refused { ids: vec![offer.id.0] },
        Note::Online => Frame::Online,
        Note::Ready => Frame::Ready,
        Note::Listen { request, wanted: Wanted { address: at, options, data } } => Frame::Listen {
            request,
            address: address(&at)?,
            options: socket_options(options),
            data: data.map(|data| data.to_vec()),
        },
        Note::Listening { listener } => Frame::Listening { listener: listener.0 },
        Note::Unlisten { listener } => Frame::Unlisten { listener: listener.0 },
        Note::Left { listener, errno } => Frame::Left { listener: listener.0, errno },
        Note::Room { listener, connections } => Frame::Room { listener: listener.0, connections },
        Note::Leaving { voluntary } => Frame::Leaving { voluntary },
        Note::Message(_) => {
            let text = "a message is no note on this channel";
            return Err(Error::new(ErrorKind::Protocol, text));
        }
        Note::Join { topic } => Frame::Join { topic },
        Note::Leave { topic } => Frame::Leave { topic },
        Note::Finished { failure } => Frame::Finished { failure: failure.as_ref().map(failed) },
    }])
}

/// The note in a frame, if a worker may send it and it needs nothing but itself.
pub(super) fn note(frame: Frame) -> Option<Note> {
    Some(match frame {
        Frame::Online => Note::Online,
        Frame::Ready => Note::Ready,
        Frame::Listen { request, address, options, data } => {
            let address = address_of(address);
            let options = options_of(options);
            let data = data.map(Into::into);
            Note::Listen { request, wanted: Wanted { address, options, data } }
        }
        Frame::Listening { listener } => Note::Listening { listener: ListenerId(listener) },
        Frame::Unlisten { listener } => Note::Unlisten { listener: ListenerId(listener) },
        Frame::Left { listener, errno } => Note::Left { listener: ListenerId(listener), errno },
        Frame::Room { listener, connections } => {
            Note::Room { listener: ListenerId(listener), connections }
        }
        Frame::Leaving { voluntary } => Note::Leaving { voluntary },
        Frame::Join { topic } => Note::Join { topic },
        Frame::Leave { topic } => Note::Leave { topic },
        Frame::Finished { failure } => Note::Finished { failure: failure.map(failure_of) },
        _ => return None,
    })
}

fn failed(error: &Error) -> wire::Failure {
    wire::Failure { panicked: error.kind() == ErrorKind::Panic, text: error.to_string() }
}

fn failure_of(failure: wire::Failure) -> Error {
    let kind = if failure.panicked { ErrorKind::Panic } else { ErrorKind::Body };
    Error::new(kind, failure.text)
}

/// The address on the wire; a name is resolved before it gets here.
pub(super) fn address(address: &Address) -> Result<wire::Address> {
    Ok(match address {
        Address::Tcp(address) => wire::Address::Tcp(*address),
        Address::Udp(address) => wire::Address::Udp(*address),
        Address::Unix(path) => wire::Address::Unix(path.as_os_str().as_bytes().to_vec()),
        Address::Fd(number) => wire::Address::Fd(*number),
        Address::Host(..) => {
            let text = format!("{address} is a name, which another process does not resolve");
            return Err(Error::new(ErrorKind::Protocol, text));
        }
    })
}

pub(super) fn address_of(address: wire::Address) -> Address {
    match address {
        wire::Address::Tcp(address) => Address::Tcp(address),
        wire::Address::Udp(address) => Address::Udp(address),
        wire::Address::Unix(path) => Address::Unix(PathBuf::from(OsString::from_vec(path))),
        wire::Address::Fd(number) => Address::Fd(number),
    }
}

fn socket_options(options: SocketOptions) -> wire::ListenOptions {
    wire::ListenOptions {
        backlog: options.backlog,
        datagram: options.datagram,
        defer_accept: options.defer_accept,
        ipv6_only: options.ipv6_only,
        reuse_address: options.reuse_address,
        readable_all: options.readable_all,
        writable_all: options.writable_all,
    }
}

fn options_of(options: wire::ListenOptions) -> SocketOptions {
    SocketOptions {
        backlog: options.backlog,
        datagram: options.datagram,
        defer_accept: options.defer_accept,
        ipv6_only: options.ipv6_only,
        reuse_address: options.reuse_address,
        readable_all: options.readable_all,
        writable_all: options.writable_all,
    }
}
