//! Starts the servers that are not bimodal's, as `benches/contenders` sets them up.

use std::net::TcpListener;

use crate::{
    Result, child,
    programs::{PM2, Programs},
    server::Server,
};

/// Those that answer `GET /plaintext`, with what they need to be there.
pub(crate) const SERVERS: [(&str, &str); 7] = [
    ("bare_mio", "bare_mio"),
    ("bare_hyper", "bare_hyper"),
    ("axum_tokio", "axum_tokio"),
    ("actix", "actix"),
    ("nginx", "nginx"),
    ("node cluster", "node"),
    ("pm2", PM2),
];

/// nginx with the option that the lab has by default (`--defer-accept`).
pub(crate) const DEFERRED: &str = "nginx deferred";

/// The bare loop with its threads pinned, as the lab's are by default.
pub(crate) const PINNED: &str = "bare_mio pinned";

/// The servers that can be started here, as arms without a mode.
pub(crate) fn present(programs: &Programs) -> impl Iterator<Item = &'static str> {
    let there = SERVERS.iter().filter(|(_, needs)| programs.rival(needs).is_some());
    there.map(|(name, _)| *name)
}

/// Starts one of [`SERVERS`], [`DEFERRED`] or [`PINNED`], with so many workers. `close`: every request will come on a
/// connection of its own, which the bare loop has to know.
pub(crate) fn start(
    programs: &Programs,
    name: &str,
    workers: usize,
    close: bool,
) -> Result<Server> {
    let server = match name {
        DEFERRED => "nginx",
        PINNED => "bare_mio",
        _ => name,
    };
    let needs = SERVERS.iter().find(|(known, _)| *known == server);
    let needs = needs.ok_or_else(|| format!("no server is called {name}"))?.1;
    let path = programs.rival(needs).ok_or_else(|| format!("{needs} is absent"))?;
    let workers = workers.to_string();
    let options = ["--listen", "127.0.0.1:0", "--workers", &workers];
    let mut command = match server {
        "nginx" => {
            let mut command = child::command(programs.contenders("nginx.sh"));
            let option = if name == DEFERRED { " deferred" } else { "" };
            command.args([&format!("{}{option}", free_address()?), &workers]);
            command.env("PATH", path_with_sbin());
            return Server::start(&mut command);
        }
        "node cluster" => {
            let mut command = child::command(path);
            command.arg(programs.contenders("node_cluster.js"));
            command
        }
        "pm2" => child::command(programs.contenders("pm2.sh")),
        _ => child::command(path),
    };
    command.args(options);
    if close && server == "bare_mio" {
        command.arg("--close");
    }
    if name == PINNED {
        command.arg("--pin");
    }
    Server::start(&mut command)
}

/// An address whose port was free a moment ago: nginx cannot choose one itself.
fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// Where Debian keeps nginx is not on every user's PATH.
fn path_with_sbin() -> String {
    format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default())
}
