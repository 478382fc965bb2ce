//! A service that other programs look after and take over from: a program that tests start, and what it is
//! while its primary changes.
//!
//! A primary that took over is a stranger to the test: it is known by the number that the events tell, and it is
//! killed at the end, whatever happens.

use std::{convert::Infallible, fs, time::Duration};

use bimodal::{
    Address, Event, UdpSocket, Worker, event_loop,
    http::{self, Full, Incoming, Request, Response},
};

use crate::support::{
    DEADLINE, Scenario, Scene, both,
    client::get,
    program::{self, Program},
    system, wait_until,
};

/// The name of the program.
pub const SERVICE: &str = "serve_as_a_service";

pub const PROGRAMS: &[Scenario] = &[both(SERVICE, serve)];

pub const SIGHUP: i32 = 1;
pub const SIGUSR2: i32 = 12;
pub const SIGTTIN: i32 = 21;
const SIGTERM: i32 = 15;

/// Serves with the options `listen=ADDRESS` (any number of them), `workers=N`, `scheduling=POLICY`, `boot=MS`, `status_socket=PATH`,
/// `addresses=N` (the first N only). Further options are in
/// the file beside the program, if there is one: what another version of the program would have.
fn serve(scene: &Scene) {
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Warn)
        .target(env_logger::Target::Stdout)
        .init();
    let beside = std::env::current_exe().unwrap().with_extension("options");
    let beside = fs::read_to_string(beside).unwrap_or_default();
    let options: Vec<_> =
        program::args().into_iter().chain(beside.split_whitespace().map(str::to_owned)).collect();
    let value = |key: &str| {
        options.iter().rev().find_map(|option| option.strip_prefix(key)?.strip_prefix('='))
    };
    let mut builder =
        scene.builder().workers(value("workers").unwrap_or("2").parse::<usize>().unwrap());
    if let Some(policy) = value("scheduling") {
        builder = builder.scheduling(policy.parse().unwrap());
    }
    if let Some(time) = value("boot") {
        builder = builder.boot_timeout(Duration::from_millis(time.parse().unwrap()));
    }
    if let Some(path) = value("status_socket") {
        builder = builder.status_socket(path);
    }
    let addresses = options.iter().filter_map(|option| option.strip_prefix("listen="));
    let mut addresses: Vec<_> = addresses.map(str::to_owned).collect();
    if addresses.is_empty() {
        addresses.push("127.0.0.1:0".into());
    }
    if let Some(number) = value("addresses") {
        addresses.truncate(number.parse().unwrap());
    }
    let report = builder.on_event(print).run(move |worker| serve_at(worker, addresses.clone()));
    println!("{} ended {:?}", std::process::id(), report.unwrap().exits);
}

fn print(event: &Event) {
    let pid = std::process::id();
    match event {
        Event::Listening { address, .. } => println!("{pid} listening {address}"),
        Event::Decision { decision } => println!("{pid} decided {decision}"),
        _ => {}
    }
}

async fn serve_at(worker: Worker, addresses: Vec<String>) -> bimodal::Result<()> {
    let mut listeners = Vec::new();
    for address in &addresses {
        match address.strip_prefix("udp:") {
            Some(_) => {
                let socket = worker.bind_udp(address.as_str()).await?;
                event_loop::spawn(answer_datagrams(socket)).detach();
            }
            None => listeners.push(worker.listen(address.as_str()).await?),
        }
    }
    let serve = |listener| event_loop::spawn(http::serve(listener, http::service_fn(answer)));
    for served in listeners.into_iter().map(serve).collect::<Vec<_>>() {
        served.await.unwrap()?;
    }
    Ok(())
}

async fn answer_datagrams(socket: UdpSocket) {
    let mut buffer = [0; 16];
    while let Ok(Some((_, peer))) = socket.recv_from(&mut buffer).await {
        let _ = socket.send_to(primary().to_string().as_bytes(), peer).await;
    }
}

/// Who answers: the primary's process. Or what a variable holds here.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<http::Bytes>>, Infallible> {
    if let Some(name) = request.uri().path().strip_prefix("/variable/") {
        return Ok(http::text(format!("{:?}", std::env::var_os(name))));
    }
    assert_ne!(request.uri().path(), "/panic");
    if let Some(time) = request.uri().path().strip_prefix("/sleep/") {
        event_loop::sleep(Duration::from_millis(time.parse().unwrap_or(0))).await;
    }
    Ok(http::text(primary().to_string()))
}

fn primary() -> u32 {
    let is_worker = bimodal::worker_of().is_some();
    if is_worker { std::os::unix::process::parent_id() } else { std::process::id() }
}

/// A server whose primary may be another process by now.
pub struct Running {
    pub program: Program,
    /// The primary.
    pub pid: u32,
    /// Where the first worker listened first.
    pub address: Address,
    /// Whoever was started to take over.
    strangers: Vec<u32>,
}

impl Running {
    /// A program of which nothing was read yet.
    #[track_caller]
    pub fn new(mut program: Program) -> Self {
        let line = program.line(|line| line.contains(" listening "));
        let address: Address = line.rsplit(' ').next().unwrap().parse().unwrap();
        let again = format!(" listening {address}");
        program.line(|line| line.ends_with(&again));
        Self::known(program, address)
    }

    /// A program that listens here.
    pub fn known(program: Program, address: Address) -> Self {
        Self { pid: program.pid(), program, address, strangers: Vec::new() }
    }

    /// Lets the next program take over; the one before must end well.
    #[track_caller]
    pub fn upgrade(&mut self) {
        system::signal(self.pid, SIGUSR2);
        self.taken_over();
    }

    /// The next program, which was started, takes over; the one before must end well.
    #[track_caller]
    pub fn taken_over(&mut self) {
        let old = self.handed_over();
        self.ended_well(old);
    }

    /// The next program takes over; the one before is about to end.
    #[track_caller]
    pub fn handed_over(&mut self) -> u32 {
        let old = self.pid;
        let taken = self.decided("has taken over");
        // From here on this one is killed at the end.
        self.pid = taken.split(' ').nth(3).unwrap().parse().unwrap();
        old
    }

    /// A program before ends well.
    #[track_caller]
    pub fn ended_well(&mut self, old: u32) {
        let end = self.line(old, "ended ");
        assert!(end.contains(r#"{"code 0": "#) && !end.contains(','), "{end}");
        if old == self.program.pid() {
            assert!(self.program.wait_only().success());
        } else {
            gone(old);
        }
    }

    /// The program that was started last goes on by itself.
    pub fn left_alone(&mut self) {
        self.pid = *self.strangers.last().unwrap();
    }

    /// The line of a primary that begins like this.
    #[track_caller]
    pub fn line(&mut self, pid: u32, start: &str) -> String {
        let start = format!("{pid} {start}");
        self.wait_for(|line| line.starts_with(&start))
    }

    /// The next decision of the current primary that holds this.
    #[track_caller]
    pub fn decided(&mut self, what: &str) -> String {
        let start = format!("{} decided ", self.pid);
        let line = self.wait_for(|line| line.starts_with(&start) && line.contains(what));
        if let Some(rest) = line.split(" decided process ").nth(1) {
            self.strangers.push(rest.split(' ').next().unwrap().parse().unwrap());
        }
        line
    }

    #[track_caller]
    fn wait_for(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let line = self.program.line_within(DEADLINE, wanted);
        line.unwrap_or_else(|| panic!("the line did not come: {:#?}", self.program.output))
    }

    /// Who answers.
    #[track_caller]
    pub fn who(&self) -> u32 {
        get(&self.address, "/").unwrap().text().parse().unwrap()
    }

    /// Waits until its workers have listened so many times: one that is told to leave before that fails.
    #[track_caller]
    pub fn listened(&mut self, times: usize) {
        let start = format!("{} listening ", self.pid);
        let listens = |line: &str| line.starts_with(&start);
        while self.program.output.iter().filter(|line| listens(line)).count() < times {
            self.wait_for(listens);
        }
    }

    /// Waits for a line of the log that holds this, if none was read.
    #[track_caller]
    pub fn warned(&mut self, of: &str) {
        let warns = |line: &str| line.starts_with("[WARN") && line.contains(of);
        if !self.program.output.iter().any(|line| warns(line)) {
            self.wait_for(warns);
        }
    }

    /// Stops the current primary in good order. Everything that was logged, from warnings on.
    #[track_caller]
    pub fn stop(mut self) -> String {
        system::signal(self.pid, SIGTERM);
        self.line(self.pid, "ended ");
        if self.pid == self.program.pid() {
            assert!(self.program.wait().success());
        } else {
            gone(self.pid);
        }
        let logged = self.program.output.iter().filter(|line| line.starts_with('['));
        logged.map(|line| line.to_owned() + "\n").collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for stranger in &self.strangers {
            system::signal(*stranger, 9);
        }
    }
}

/// Waits for the end of a process that is somebody else's child.
#[track_caller]
pub fn gone(pid: u32) {
    wait_until("the end of a program", || matches!(system::state(pid), None | Some('Z')));
}
