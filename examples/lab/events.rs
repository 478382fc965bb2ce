//! What the primary prints: the ready line, events, the report. Runs on the primary's thread only.

use std::io::{self, Write as _};

use bimodal::{Address, Decision, Event, Report, Settings};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// How events are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// One object per line.
    Json,
    /// Not at all.
    Off,
}

/// Prints events, and one line when every worker listens on every address.
pub(crate) struct Announcer {
    form: Form,
    /// Addresses that each worker listens on.
    addresses: usize,
    workers: usize,
    /// What the ready line says of the settings.
    summary: String,
    /// Who listens where, by slot. Given up once the line is printed.
    listening: Option<Vec<(usize, Address)>>,
}

impl Announcer {
    pub(crate) fn new(form: Form, addresses: usize) -> Self {
        Self { form, addresses, workers: 0, summary: String::new(), listening: Some(Vec::new()) }
    }

    pub(crate) fn announce(&mut self, event: &Event) {
        match self.form {
            Form::Text => print(&text(event)),
            Form::Json => print(&json(event)),
            Form::Off => {}
        }
        if let Some(line) = self.ready_line(event) {
            self.listening = None;
            print(&line);
        }
    }

    fn ready_line(&mut self, event: &Event) -> Option<String> {
        let listening = self.listening.as_mut()?;
        match event {
            Event::Setup { settings } => {
                self.workers = settings.workers;
                self.summary = summary(settings);
            }
            Event::Listening { worker, address } => {
                listening.push((worker.slot().get(), address.clone()))
            }
            Event::Exit { worker, .. } => {
                listening.retain(|(slot, _)| *slot != worker.slot().get())
            }
            _ => {}
        }
        if self.workers == 0 || listening.len() < self.workers * self.addresses {
            return None;
        }
        let primary = std::process::id();
        Some(format!("listening on {} {} primary={primary}", urls(listening), self.summary))
    }
}

/// The addresses in the order in which a worker listened on them.
fn urls(listening: &[(usize, Address)]) -> String {
    let one_worker = |(slot, _): &&(usize, Address)| *slot == listening[0].0;
    let url = |(_, address): &(usize, Address)| match address.tcp() {
        Some(address) => format!("http://{address}"),
        None => address.to_string(),
    };
    listening.iter().filter(one_worker).map(url).collect::<Vec<_>>().join(",")
}

/// Prints the report: the last line in JSON, else a few lines for people.
pub(crate) fn print_report(form: Form, report: &Report) {
    if form != Form::Json {
        return print(report.to_string().trim_end());
    }
    let details = json!({
        "started": report.started,
        "restarts": report.restarts,
        "exits": report.exits,
        "dispatched": report.dispatched,
        "dispatched_again": report.dispatched_again,
        "recycled": report.recycled,
        "hung": report.hung,
        "reloads": report.reloads,
        "failed_reloads": report.failed_reloads,
        "closed": report.closed,
        "forced_kills": report.forced_kills,
        "abandoned": report.abandoned,
    });
    print(&Line { event: "report", subject: None, details: members(details) }.to_json());
}

fn text(event: &Event) -> String {
    let who = event.worker().map(|worker| match worker.pid() {
        Some(pid) => format!("{worker} (pid {pid}, generation {})", worker.generation()),
        None => worker.to_string(),
    });
    let parts: Vec<String> = who.into_iter().chain(remark(event)).collect();
    format!("{:<10} {}", event.name(), parts.join(": "))
}

fn remark(event: &Event) -> Option<String> {
    Some(match event {
        Event::Setup { settings } => summary(settings),
        Event::Listening { address, .. } => address.to_string(),
        Event::Message { message, .. } => message.type_name().to_owned(),
        Event::Exit { worker, status } if worker.exited_after_disconnect() == Some(true) => {
            format!("{status}, as asked")
        }
        Event::Exit { status, .. } => status.to_string(),
        Event::Error { error, .. } => error.to_string(),
        Event::Missed { count } => format!("{count} events"),
        Event::Decision { decision } => decision.to_string(),
        _ => return None,
    })
}

fn summary(settings: &Settings) -> String {
    let Settings { mode, workers, scheduling, .. } = settings;
    format!("mode={mode} workers={workers} scheduling={scheduling}")
}

/// An event's line: who first, then what.
#[derive(Serialize)]
struct Line {
    event: &'static str,
    #[serde(flatten)]
    subject: Option<Subject>,
    #[serde(flatten)]
    details: Map<String, Value>,
}

#[derive(Serialize)]
struct Subject {
    worker: u64,
    pid: Option<u32>,
    slot: usize,
    generation: u32,
}

fn json(event: &Event) -> String {
    let subject = event.worker().map(|worker| Subject {
        worker: worker.id().get(),
        pid: worker.pid(),
        slot: worker.slot().get(),
        generation: worker.generation(),
    });
    Line { event: event.name(), subject, details: details(event) }.to_json()
}

impl Line {
    fn to_json(&self) -> String {
        // Texts and numbers under text keys always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn members(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// What an event says beside its name and its worker.
fn details(event: &Event) -> Map<String, Value> {
    members(match event {
        Event::Setup { settings } => json!({
            "mode": settings.mode.to_string(),
            "workers": settings.workers,
            "scheduling": settings.scheduling.to_string(),
            "primary": std::process::id(),
        }),
        Event::Listening { address, .. } => json!({ "address": address.to_string() }),
        Event::Message { message, .. } => json!({ "type": message.type_name() }),
        Event::Exit { worker, status } => json!({
            "status": status.to_string(),
            "code": status.code(),
            "signal": status.signal(),
            "exited_after_disconnect": worker.exited_after_disconnect() == Some(true),
        }),
        Event::Error { error, .. } => json!({ "error": error.to_string() }),
        Event::Missed { count } => json!({ "count": count }),
        Event::Decision { decision } => decided(decision),
        _ => Value::Null,
    })
}

/// What was decided, and why.
fn decided(decision: &Decision) -> Value {
    let ms = |time: &std::time::Duration| time.as_millis() as u64;
    match decision {
        Decision::Restart { worker, cause, delay } => {
            json!({ "decision": "restart", "of": worker.get(), "cause": cause, "delay_ms": ms(delay) })
        }
        Decision::NoRestart { worker, cause } => {
            json!({ "decision": "no restart", "of": worker.get(), "cause": cause })
        }
        Decision::NotReady { worker, within } => {
            json!({ "decision": "not ready", "of": worker.get(), "within_ms": ms(within) })
        }
        Decision::Hung { worker, silent } => {
            json!({ "decision": "hung", "of": worker.get(), "silent_ms": ms(silent) })
        }
        Decision::Recycle { worker, cause } => {
            json!({ "decision": "recycle", "of": worker.get(), "cause": cause })
        }
        Decision::Scale { from, to } => json!({ "decision": "scale", "from": from, "to": to }),
        Decision::ReloadFailed { cause } => json!({ "decision": "reload failed", "cause": cause }),
        Decision::Reload => json!({ "decision": "reload" }),
        Decision::Reloaded => json!({ "decision": "reloaded" }),
        Decision::Stop => json!({ "decision": "stop" }),
        other => json!({ "decision": other.to_string() }),
    }
}

/// One line, at once. A reader who has gone must not end the server.
fn print(line: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
