//! The checked settings of a load, which all its threads share.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    time::Duration,
};

use http::{Method, Uri};

use super::{
    answer::Asked,
    arrival::{Arrival, Until, nanos},
    request::{Expect, Request},
    settings::{Load, Reuse},
};
use crate::error::{Error, ErrorKind, Result};

/// Connections of one thread at most: their numbers must leave room for a generation in an event's token.
pub(super) const MAX_CONNECTIONS: usize = 1_000_000;

/// Requests per second at most; what is faster than a clock's tick cannot be spaced.
const MAX_RATE: f64 = 10_000_000.0;

/// Requests that an open loop may schedule at most.
const MAX_SCHEDULED: f64 = 1e10;

/// A time at most: what a histogram can hold.
const MAX_TIME: Duration = Duration::from_secs(3600);

/// Descriptors that the program needs besides the connections.
const OTHER_DESCRIPTORS: u64 = 32;

/// The server, and the path that is asked for.
#[derive(Clone, Debug)]
pub(super) struct Target {
    host: String,
    port: u16,
    /// Host and port as a `Host` header has them.
    authority: String,
    path: String,
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self> {
        let fault = |why: &str| {
            let text = format!("the URL {url:?} {why}: it must be http://HOST[:PORT][/PATH]");
            Error::new(ErrorKind::Setting, text)
        };
        let uri: Uri = url.parse().map_err(|error| fault(&format!("is none ({error})")))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(fault(
                    "asks for TLS, which the driver does not speak, so as not to measure it",
                ));
            }
            _ => return Err(fault("has another scheme")),
        }
        let authority = uri.authority().ok_or_else(|| fault("names no host"))?;
        if authority.as_str().contains('@') || url.contains('#') {
            return Err(fault("has a user or a fragment"));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: port(authority).ok_or_else(|| fault("has no valid port"))?,
            authority: authority.as_str().to_owned(),
            path,
        })
    }

    /// Its address: if there are several, an IPv4 address before others, as `localhost` is for servers here.
    fn resolve(&self) -> Result<SocketAddr> {
        let cannot = |why: &str| format!("the host {:?} cannot be resolved: {why}", self.host);
        let found = (&*self.host, self.port).to_socket_addrs();
        let found = found
            .map_err(|error| Error::caused(ErrorKind::Io, cannot(&error.to_string()), error))?;
        let address = found.min_by_key(|address| !address.is_ipv4());
        address.ok_or_else(|| Error::new(ErrorKind::Io, cannot("it has no address")))
    }
}

fn port(authority: &http::uri::Authority) -> Option<u16> {
    let has_none = authority.as_str() == authority.host();
    if has_none { Some(80) } else { authority.port_u16().filter(|port| *port > 0) }
}

/// The checked settings.
pub(super) struct Plan {
    pub(super) address: SocketAddr,
    pub(super) classes: Vec<Sent>,
    pub(super) weights: Vec<u32>,
    pub(super) arrival: Arrival,
    pub(super) connections: usize,
    pub(super) until: Until,
    pub(super) warmup: u64,
    /// Requests of one connection at most.
    pub(super) per_connection: u64,
    pub(super) pipeline: usize,
    pub(super) timeout: u64,
    pub(super) threads: usize,
    pub(super) count_by: Option<String>,
    pub(super) seed: u64,
}

/// A class of requests, ready to be sent.
pub(super) struct Sent {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    method: Method,
    pub(super) expect: Expect,
}

impl Sent {
    fn new(request: &Request, load: &Load) -> Result<Self> {
        Ok(Self {
            name: request.name.clone(),
            bytes: request.encode(&load.target.authority, load.reuse == Reuse::Close)?,
            method: request.method.clone(),
            expect: request.expect.clone(),
        })
    }

    pub(super) fn asked(&self, keep: bool) -> Asked<'_> {
        Asked { method: &self.method, expect: &self.expect, keep }
    }
}

impl Plan {
    pub(super) fn check(load: &Load) -> Result<Self> {
        check_counts(load)?;
        check_times(load)?;
        check_rate(load)?;
        let of_url = Request { name: "default".to_owned(), ..Request::get(&load.target.path) };
        let default = [(1, of_url)];
        let classes = if load.classes.is_empty() { &default[..] } else { &load.classes[..] };
        check_weights(classes)?;
        Ok(Self {
            address: load.target.resolve()?,
            weights: classes.iter().map(|(weight, _)| *weight).collect(),
            classes: classes
                .iter()
                .map(|(_, request)| Sent::new(request, load))
                .collect::<Result<_>>()?,
            arrival: load.arrival,
            connections: load.connections,
            until: load.until,
            warmup: nanos(load.warmup),
            per_connection: match load.reuse {
                Reuse::KeepAlive => u64::MAX,
                Reuse::Requests(count) => count.into(),
                Reuse::Close => 1,
            },
            pipeline: load.pipeline,
            timeout: nanos(load.timeout),
            threads: load.threads,
            count_by: load.count_by.clone(),
            seed: load.seed,
        })
    }
}

fn check_counts(load: &Load) -> Result<()> {
    within("connections", load.connections, 1, MAX_CONNECTIONS)?;
    within("pipeline", load.pipeline, 1, 1024)?;
    within("threads", load.threads, 1, 256)?;
    if load.threads > load.connections {
        let Load { threads, connections, .. } = load;
        return Err(fault(format!(
            "threads is {threads}, more than there are connections ({connections}): choose fewer threads or more connections"
        )));
    }
    if load.reuse == Reuse::Requests(0) {
        return Err(fault("reuse is for 0 requests: choose at least 1".to_owned()));
    }
    if load.reuse == Reuse::Close && load.pipeline > 1 {
        return Err(fault(format!(
            "pipeline is {}, but reuse closes a connection after one request: choose one of them",
            load.pipeline
        )));
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let needed = load.connections as u64 + OTHER_DESCRIPTORS;
    if limit.is_some_and(|limit| limit < needed) {
        let text = format!(
            "{} connections need {needed} descriptors, and the limit is {}",
            load.connections,
            limit.unwrap_or(0)
        );
        return Err(fault(format!("{text}: choose fewer connections or raise it (ulimit -n)")));
    }
    Ok(())
}

fn check_times(load: &Load) -> Result<()> {
    let times = [("warmup", load.warmup, true), ("timeout", load.timeout, false)];
    let until = match load.until {
        Until::Elapsed(time) => Some(("until", time, false)),
        Until::Requests(0) => {
            return Err(fault("until is 0 requests: choose at least 1".to_owned()));
        }
        Until::Requests(_) => None,
    };
    for (name, time, may_be_zero) in times.into_iter().chain(until) {
        if time > MAX_TIME || (time.is_zero() && !may_be_zero) {
            return Err(fault(format!(
                "{name} is {time:?}: choose more than 0 and at most 1 hour"
            )));
        }
    }
    Ok(())
}

fn check_rate(load: &Load) -> Result<()> {
    let Some(rate) = load.arrival.per_second() else { return Ok(()) };
    if !(rate > 0.0 && rate <= MAX_RATE) {
        return Err(fault(format!(
            "the rate is {rate} per second: choose more than 0 and at most {MAX_RATE}"
        )));
    }
    let time = match load.until {
        Until::Elapsed(time) => (time + load.warmup).as_secs_f64(),
        Until::Requests(count) => load.warmup.as_secs_f64() + count as f64 / rate,
    };
    if rate * time > MAX_SCHEDULED {
        return Err(fault(format!(
            "{rate} per second for {time:.0} s are more than {MAX_SCHEDULED} requests: choose a lower rate or a shorter time"
        )));
    }
    Ok(())
}

fn check_weights(classes: &[(u32, Request)]) -> Result<()> {
    let sum: u64 = classes.iter().map(|(weight, _)| u64::from(*weight)).sum();
    if sum == 0 || u32::try_from(sum).is_err() {
        return Err(fault(format!(
            "the weights of the requests add up to {sum}: choose at least 1 and at most {}",
            u32::MAX
        )));
    }
    Ok(())
}

fn within(name: &str, value: usize, low: usize, high: usize) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(fault(format!("{name} is {value}: choose at least {low} and at most {high}")))
}

fn fault(text: String) -> Error {
    Error::new(ErrorKind::Setting, text)
}
