//! E12: what messages cost between the primary and a worker.

use bimodal::Mode;
use serde_json::Value;

use crate::{
    Result,
    chart::{Axis, Charts, Lines, Series, Style},
    criterion::{self, Figure, Run},
    experiment::{Bench, Cell, Experiment},
    plan::{MODES, Plan},
    programs::Programs,
    results::Results,
    section::{Bar, Chart, Decision, Section, Table, time},
};

/// The only arm: the bench measures both modes, the floor and Node's scripts in one run.
const ARM: &str = "bench";

const PORT: &str = "round_trip_100_bytes_by_port";
const HANDLE: &str = "round_trip_100_bytes";
const SOCKET: &str = "socket_with_a_message";
const SOCKET_BY_PORT: &str = "socket_with_a_message_by_port";
const DOWN: &str = "one_way_down_100_bytes";
const UP: &str = "one_way_up_100_bytes";
const PLAIN_DOWN: &str = "one_way_down_100_plain_bytes";
const PLAIN_UP: &str = "one_way_up_100_plain_bytes";

/// What is measured, its name in tables, and the aims for processes and for threads, in us per round trip or message.
const ROWS: [(&str, &str, [Option<f64>; 2]); 8] = [
    (PORT, "port, there and back", [Some(12.0), Some(5.0)]),
    (HANDLE, "handle and events, there and back", [Some(12.0), Some(5.0)]),
    (SOCKET_BY_PORT, "a socket with a message by port, and the answer", [Some(15.0); 2]),
    (SOCKET, "a socket with a message by handle, and the answer", [Some(15.0); 2]),
    (DOWN, "one way, texts to the worker", [Some(1.0 / 0.8), Some(1.0 / 3.0)]),
    (UP, "one way, texts to the program", [Some(1.0 / 0.8), Some(1.0 / 3.0)]),
    (PLAIN_DOWN, "one way, plain bytes to the worker", [None, Some(1.0 / 3.0)]),
    (PLAIN_UP, "one way, plain bytes to the program", [None, Some(1.0 / 3.0)]),
];

/// A bare channel between two threads, and its name in tables.
const BARE_CHANNEL: [(&str, &str); 2] = [
    ("floor/one_way_100_bytes", "floor, one way, texts"),
    ("floor/one_way_100_plain_bytes", "floor, one way, plain bytes"),
];

/// Bytes of the texts that go there and back in `MODE_by_size`.
const SIZES: [u32; 4] = [16, 1 << 10, 64 << 10, 1 << 20];

/// What follows the mode in the names of a cluster that looks again before it sleeps.
const IDLE_POLL: &str = "_with_idle_poll";

pub(crate) struct Messages;

impl Experiment for Messages {
    fn id(&self) -> &'static str {
        "E12"
    }

    fn title(&self) -> &'static str {
        "Messages"
    }

    fn question(&self) -> &'static str {
        "What does a message between the primary and a worker cost, there and back, one way, and with a socket?"
    }

    fn cells(&self, plan: &Plan, programs: &Programs) -> Vec<Cell> {
        let node = if programs.rival("node").is_some() { 25_000 } else { 0 };
        vec![Cell::single(ARM, plan.millis(150_000 + node, 22_000 + node))]
    }

    fn run(&self, _: &Cell, bench: &Bench<'_>) -> Result<Value> {
        Ok(serde_json::to_value(criterion::run("messaging", "", bench)?)?)
    }

    fn section(&self, results: &Results, charts: &Charts) -> Result<Section> {
        let found = Found(Run::of(results, &results.arms())?);
        Ok(Section {
            setup: "`cargo bench --bench messaging`, which also runs the scripts `messaging_*.js` in \
                    `benches/contenders` where Node is installed; messages of 100 bytes, one worker. The floor is a bare \
                    socket pair with blocking reads and writes: two wake-ups and nothing else; one way, a bare channel of \
                    crossbeam-channel between two threads. Plain bytes are in the value itself, those of a text in memory of \
                    their own. With `idle_poll` loops look again for 50 us before they sleep. In brackets Criterion's 95 % \
                    interval of the median."
                .to_owned(),
            tables: vec![found.table(), found.sizes()],
            charts: vec![found.chart(charts)?],
            meaning: found.meaning(),
            overturn: vec![
                "A machine whose cores are free: most of a round trip is waking a sleeper, and that costs less where \
                 the other core is awake."
                    .to_owned(),
                "Values without text: between threads a value is moved whatever its length, between processes it is encoded."
                    .to_owned(),
            ],
            bars: found.bars(),
            decisions: found.decision().into_iter().collect(),
            notes: include_str!("notes/e12.md"),
        })
    }
}

struct Found(Run);

impl Found {
    fn get(&self, mode: Mode, what: &str) -> Option<Figure> {
        self.0.get(&format!("{mode}/{what}"))
    }

    fn by_size(&self, mode: Mode, size: u32) -> Option<Figure> {
        self.0.get(&format!("{mode}_by_size/round_trip_{size}_bytes"))
    }

    /// A figure as a cell: what goes one way as a rate.
    fn shown(&self, what: &str, name: &str) -> String {
        if is_one_way(what) { self.rate(name) } else { self.0.cell(name) }
    }

    fn rate(&self, name: &str) -> String {
        let Some(figure) = self.0.get(name) else { return self.0.cell(name) };
        let [slow, median, quick] =
            [figure.high, figure.median, figure.low].map(|ns| per_second(ns / 1e3));
        format!("{median} [{slow}, {quick}]")
    }

    fn table(&self) -> Table {
        let run = &self.0;
        let head = [
            "per round trip or message",
            "process",
            "with `idle_poll`",
            "Node `cluster` (JSON)",
            "thread",
            "with `idle_poll`",
            "Node `worker_threads`",
        ];
        let mut table = Table::new("", &head);
        let floor = MODES.map(|mode| run.cell(&floor(mode)));
        let [process, thread] = floor;
        let none = || "-".to_owned();
        table.row([
            "floor, there and back".to_owned(),
            process,
            none(),
            none(),
            thread,
            none(),
            none(),
        ]);
        for (what, words) in BARE_CHANNEL {
            let cells = [words.to_owned(), none(), none(), none(), self.rate(what), none(), none()];
            table.row(cells);
        }
        for (what, words, _) in ROWS {
            let mut cells = vec![words.to_owned()];
            for (mode, node) in
                [(Mode::Process, "cluster (json)"), (Mode::Thread, "worker_threads")]
            {
                cells.push(self.shown(what, &format!("{mode}/{what}")));
                cells.push(self.shown(what, &format!("{mode}{IDLE_POLL}/{what}")));
                cells.push(run.script_cell(&format!("node {node} {what}")));
            }
            table.row(cells);
        }
        table
    }

    fn sizes(&self) -> Table {
        let head = ["there and back", "16 B", "1 KiB", "64 KiB", "1 MiB"];
        let mut table = Table::new("The same text to and fro, by handle and events:", &head);
        for mode in MODES {
            let cell = |size| self.by_size(mode, size).map_or_else(|| "-".to_owned(), Figure::cell);
            table.row([mode.to_string()].into_iter().chain(SIZES.map(cell)));
        }
        table
    }

    fn chart(&self, charts: &Charts) -> Result<Chart> {
        let series = MODES.map(|mode| {
            let point =
                |size: &u32| Some((f64::from(*size), self.by_size(mode, *size)?.median / 1e3));
            let points = SIZES.iter().filter_map(point).collect();
            Series { name: mode.to_string(), style: Style::mode(mode), points }
        });
        let lines = Lines {
            title: "A text to the worker and back",
            x: Axis::log("bytes of the text"),
            y: Axis::log("us per round trip"),
            series: series.into(),
            marks: Vec::new(),
        };
        charts.lines(
            "e12-messages.svg",
            "microseconds per round trip against the length of the text",
            &lines,
        )
    }

    fn meaning(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for mode in MODES {
            if let (Some(port), Some(floor)) = (self.get(mode, PORT), self.0.get(&floor(mode))) {
                lines.push(format!(
                    "{mode}: a round trip by port takes {:.2} times what a bare socket pair takes.",
                    port.times(floor).value
                ));
            }
            let [small, .., large] = SIZES;
            if let (Some(small), Some(large)) =
                (self.by_size(mode, small), self.by_size(mode, large))
            {
                let times = large.times(small).value;
                lines.push(format!("{mode}: 1 MiB takes {times:.1} times as long as 16 B."));
            }
        }
        for (mode, node) in [(Mode::Process, "cluster (json)"), (Mode::Thread, "worker_threads")] {
            let theirs = self.0.scripts.get(&format!("node {node} {HANDLE}"));
            if let (Some(ours), Some(theirs)) = (self.get(mode, HANDLE), theirs) {
                // The script prints us.
                let times = theirs.value * 1e3 / ours.median;
                lines.push(format!("{mode}: Node takes {times:.1} times as long, there and back."));
            }
        }
        lines
    }

    /// An aim counts as met by the better of the two ways to wait, since a program can choose.
    fn bars(&self) -> Vec<Bar> {
        let bar = |what: &str, words: &str, mode: Mode, most_us: f64| {
            let plain = self.get(mode, what);
            let polling = self.0.get(&format!("{mode}{IDLE_POLL}/{what}"));
            let best = [plain, polling].into_iter().flatten().map(|figure| figure.median / 1e3);
            let best = best.reduce(f64::min);
            let text = |figure: Option<Figure>| {
                figure.map_or("-".into(), |figure| amount(what, figure.median / 1e3))
            };
            Bar {
                aim: format!("E12 {mode}: {words}, {}", amount(what, most_us)),
                measured: format!("{}, with `idle_poll` {}", text(plain), text(polling)),
                met: best.map(|best| best <= most_us),
            }
        };
        let of = |mode: Mode, at: usize| {
            ROWS.iter()
                .filter_map(move |(what, words, most)| Some(bar(what, words, mode, most[at]?)))
        };
        of(Mode::Process, 0).chain(of(Mode::Thread, 1)).collect()
    }

    fn decision(&self) -> Option<Decision> {
        let [process, thread] = MODES.map(|mode| self.by_size(mode, SIZES[2]));
        let (process, thread) = (process?, thread?);
        let mode = if thread.median < process.median { Mode::Thread } else { Mode::Process };
        Some(Decision {
            need: "much that is handed between workers and the program".to_owned(),
            mode: mode.to_string(),
            scheduling: "any".to_owned(),
            why: format!(
                "64 KiB there and back: {} between threads, {} between processes",
                time(thread.median / 1e9),
                time(process.median / 1e9)
            ),
        })
    }
}

/// Whether many are under way at once, so that the rate is what counts.
fn is_one_way(what: &str) -> bool {
    [DOWN, UP, PLAIN_DOWN, PLAIN_UP].contains(&what)
}

/// So many us per message, as it is shown.
fn amount(what: &str, us: f64) -> String {
    if is_one_way(what) { per_second(us) } else { time(us / 1e6) }
}

fn per_second(us: f64) -> String {
    format!("{:.2} M/s", 1.0 / us)
}

/// The bare socket pair between two processes or two threads.
fn floor(mode: Mode) -> String {
    let between = match mode {
        Mode::Process => "processes",
        Mode::Thread => "threads",
    };
    format!("floor/round_trip_between_{between}")
}
