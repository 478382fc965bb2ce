//! The command line, and the load that it asks for.

use std::{fs, str::FromStr, time::Duration};

use bimodal::{
    Result,
    http::Method,
    load::{Arrival, Expect, Load, Request, Reuse, Until},
};
use clap::Parser;

/// Puts a load on an HTTP/1 server and says what came of it.
#[derive(Parser)]
#[command(name = "load")]
pub(crate) struct Args {
    /// http://HOST[:PORT][/PATH]
    pub(crate) url: String,
    /// Connections, at most
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) connections: usize,
    /// Requests per second, whatever the server does [default: as fast as it answers]
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// Exponentially distributed gaps, instead of even ones
    #[arg(long, requires = "rate")]
    poisson: bool,
    /// How long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    duration: Duration,
    /// How many requests, instead of how long
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    requests: Option<u64>,
    /// What goes before and does not count
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time)]
    warmup: Duration,
    /// How long a connection is used: keep-alive, close (for one request), or for N requests
    #[arg(long, value_name = "REUSE", default_value = "keep-alive", value_parser = reuse)]
    reuse: Reuse,
    /// Requests under way on one connection, at most
    #[arg(long, value_name = "N", default_value_t = 1)]
    pipeline: usize,
    /// Threads of the driver
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) threads: usize,
    /// How long a request may take, from when it was due
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    timeout: Duration,
    /// Counts answers by this field of their JSON object
    #[arg(long, value_name = "FIELD")]
    pub(crate) count_by: Option<String>,
    /// The method [default: GET, with a body POST]
    #[arg(long, value_name = "METHOD")]
    method: Option<Method>,
    /// A header; may be repeated
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    /// The body, or with @ the file that has it
    #[arg(long, value_name = "TEXT|@FILE", value_parser = body)]
    body: Option<Body>,
    /// Requests for this path, by this weight, instead of those for the URL's; may be repeated
    #[arg(long, value_name = "WEIGHT PATH", value_parser = mix)]
    mix: Vec<(u32, String)>,
    /// The status that an answer must have
    #[arg(long, value_name = "N", default_value_t = 200)]
    expect_status: u16,
    /// The body that an answer must have
    #[arg(long, value_name = "TEXT")]
    expect_body: Option<String>,
    /// Where chance begins: the same seed gives the same requests
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Prints the whole outcome as one object
    #[arg(long)]
    pub(crate) json: bool,
}

/// A body, in a type of its own: clap takes a list of bytes for a list of arguments.
#[derive(Clone)]
struct Body(Vec<u8>);

impl Args {
    /// The load, which is checked when it starts.
    pub(crate) fn load(&self) -> Result<Load> {
        let mut load = Load::new(&self.url)?
            .connections(self.connections)
            .arrival(self.arrival())
            .until(self.requests.map_or(Until::Elapsed(self.duration), Until::Requests))
            .warmup(self.warmup)
            .reuse(self.reuse)
            .pipeline(self.pipeline)
            .threads(self.threads)
            .timeout(self.timeout)
            .seed(self.seed);
        if let Some(field) = &self.count_by {
            load = load.count_by(field);
        }
        Ok(self
            .requests()
            .into_iter()
            .fold(load, |load, (weight, request)| load.request(weight, request)))
    }

    pub(crate) fn arrival(&self) -> Arrival {
        match self.rate {
            None => Arrival::Closed,
            Some(per_second) if self.poisson => Arrival::Poisson { per_second },
            Some(per_second) => Arrival::Constant { per_second },
        }
    }

    fn requests(&self) -> Vec<(u32, Request)> {
        let of_url = [(1, path(&self.url).to_owned())];
        let mix = if self.mix.is_empty() { &of_url[..] } else { &self.mix[..] };
        mix.iter().map(|(weight, path)| (*weight, self.request(path))).collect()
    }

    fn request(&self, path: &str) -> Request {
        let default = if self.body.is_some() { Method::POST } else { Method::GET };
        Request {
            method: self.method.clone().unwrap_or(default),
            headers: self.header.clone(),
            body: self.body.clone().map_or_else(Vec::new, |body| body.0),
            expect: Expect {
                status: self.expect_status,
                body: self.expect_body.clone().map(String::into_bytes),
                length: None,
            },
            ..Request::get(path)
        }
    }
}

/// The path of a URL: it may have none.
fn path(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or("/", |at| &rest[at..])
}

/// A time such as `10s`, `1.5s`, `250ms` or `2m`.
fn time(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err("give a unit: ms, s or m".to_owned()),
    };
    let number = number.parse::<f64>().map_err(|error| error.to_string())?;
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}

fn reuse(text: &str) -> Result<Reuse, String> {
    match text {
        "keep-alive" => Ok(Reuse::KeepAlive),
        "close" => Ok(Reuse::Close),
        count => count
            .parse()
            .map(Reuse::Requests)
            .map_err(|_| "keep-alive, close or a number".to_owned()),
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("it has no colon")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn body(text: &str) -> Result<Body, String> {
    match text.strip_prefix('@') {
        Some(file) => fs::read(file).map(Body).map_err(|error| format!("{file}: {error}")),
        None => Ok(Body(text.into())),
    }
}

fn mix(text: &str) -> Result<(u32, String), String> {
    let (weight, path) = text.split_once(' ').ok_or("it has no blank between weight and path")?;
    let weight = u32::from_str(weight).map_err(|error| format!("{weight:?}: {error}"))?;
    Ok((weight, path.trim().to_owned()))
}
