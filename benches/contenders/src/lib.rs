//! What the contenders share: their command line, their answer, and the loop of the bare ones.

pub mod bare;

use std::net::{Ipv4Addr, SocketAddr};
use std::process;

/// The body of `GET /plaintext`.
pub const BODY: &str = "Hello, World!";

/// The command line of a contender.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Where to listen; port 0 asks the kernel for a free one.
    pub listen: SocketAddr,
    /// Threads that serve requests.
    pub workers: usize,
    /// Close a connection after its first answer, for servers that do not read the request.
    pub close: bool,
    /// Pin each thread to a core of its own, as far as there are cores.
    pub pin: bool,
}

impl Options {
    /// Reads the command line of a contender that takes these of `--close` and `--pin`, or ends the program with
    /// status 2 and the reason.
    pub fn from_args(flags: &[&str]) -> Self {
        Self::parse(std::env::args().skip(1), flags).unwrap_or_else(|reason| {
            let flags: String = flags.iter().map(|flag| format!(" [{flag}]")).collect();
            eprintln!("{reason}\nusage: [--listen ADDR:PORT] [--workers N]{flags}");
            process::exit(2)
        })
    }

    fn parse(mut args: impl Iterator<Item = String>, flags: &[&str]) -> Result<Self, String> {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut options = Self { listen, workers: 2, close: false, pin: false };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--listen" => options.listen = value(&arg, args.next())?,
                "--workers" => options.workers = value(&arg, args.next())?,
                "--close" if flags.contains(&"--close") => options.close = true,
                "--pin" if flags.contains(&"--pin") => options.pin = true,
                _ => return Err(format!("unknown argument {arg:?}")),
            }
        }
        if options.workers == 0 {
            return Err("--workers: at least 1".into());
        }
        Ok(options)
    }
}

fn value<T: std::str::FromStr>(name: &str, text: Option<String>) -> Result<T, String> {
    let text = text.ok_or_else(|| format!("{name}: a value is missing"))?;
    text.parse().map_err(|_| format!("{name}: cannot read {text:?}"))
}

/// Prints the line that scripts wait for.
pub fn announce(address: SocketAddr) {
    println!("listening on http://{address}");
}

#[cfg(test)]
mod tests {
    use super::Options;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(String::from), &["--close", "--pin"])
    }

    #[test]
    fn reads_every_option() {
        let options = parse("--listen [::1]:80 --workers 3 --close --pin");
        let listen = "[::1]:80".parse().map_err(|_| String::new());
        let expected = listen.map(|listen| Options { listen, workers: 3, close: true, pin: true });
        assert_eq!(options, expected);
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        for line in ["--workers", "--workers 0", "--workers x", "--listen here", "--colse"] {
            assert!(parse(line).is_err(), "{line}");
        }
        let args = ["--close", "--pin"].map(String::from);
        assert!(args.into_iter().all(|arg| Options::parse([arg].into_iter(), &[]).is_err()));
    }
}
