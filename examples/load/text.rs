//! The result for people.

use std::fmt::Write as _;

use bimodal::load::{Arrival, Histogram, Outcome};

use crate::args::Args;

/// From here on the driver is what limits the result, or nearly.
const BUSY: f64 = 0.9;

/// An open loop that is later than that for one request in a hundred blurs what it measures (ns).
const LATE: u64 = 1_000_000;

/// The result, line by line.
pub(crate) fn result(args: &Args, outcome: &Outcome) -> String {
    let mut text = String::new();
    // Writing into a text does not fail.
    let _ = head(&mut text, args, outcome)
        .and_then(|()| table(&mut text, args, outcome))
        .and_then(|()| workers(&mut text, outcome))
        .and_then(|()| driver(&mut text, args, outcome));
    text
}

fn head(text: &mut String, args: &Args, outcome: &Outcome) -> std::fmt::Result {
    let loop_ = match args.arrival() {
        Arrival::Closed => "closed loop".to_owned(),
        Arrival::Constant { per_second } => format!("open loop at {per_second} requests/s"),
        Arrival::Poisson { per_second } => format!("open loop, Poisson, {per_second} requests/s"),
    };
    let (elapsed, opened) = (outcome.elapsed.as_secs_f64(), outcome.connections);
    writeln!(text, "{}: {loop_}, {elapsed:.2} s, {opened} connections opened", args.url)?;
    let (completed, scheduled) = (outcome.completed(), outcome.scheduled());
    let rate = outcome.per_second();
    writeln!(text, "completed {completed} of {scheduled} requests, {rate:.1} per second")?;
    let failures = outcome.failures();
    writeln!(text, "failed    {}: {failures}", failures.total())
}

/// Percentiles per class, and of all if there are several.
fn table(text: &mut String, args: &Args, outcome: &Outcome) -> std::fmt::Result {
    let width = outcome.classes.iter().map(|class| class.name.len()).max().unwrap_or(0).max(9);
    let titles = ["p50", "p90", "p99", "p99.9", "max"].map(|title| format!("{title:>9}")).concat();
    writeln!(text, "\n{:<width$} {:>10} {:>8}{titles}", "latency", "completed", "failed")?;
    for class in &outcome.classes {
        let failed = class.failures.total();
        row(text, &class.name, width, (class.completed, failed), &class.latency)?;
    }
    let all = (outcome.completed(), outcome.failures().total());
    if outcome.classes.len() > 1 {
        row(text, "all", width, all, &outcome.latency())?;
    }
    if args.arrival() != Arrival::Closed {
        row(text, "from send", width, all, &outcome.service())?;
    }
    Ok(())
}

fn row(
    text: &mut String,
    name: &str,
    width: usize,
    (completed, failed): (u64, u64),
    times: &Histogram,
) -> std::fmt::Result {
    let shown = [0.5, 0.9, 0.99, 0.999, 1.0].map(|q| match times.len() {
        0 => format!("{:>9}", "-"),
        _ => format!("{:>9}", time(times.value_at_quantile(q))),
    });
    writeln!(text, "{name:<width$} {completed:>10} {failed:>8}{}", shown.concat())
}

fn workers(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    if outcome.workers.is_empty() {
        return Ok(());
    }
    let counts = outcome.workers.values();
    let mean = counts.clone().sum::<u64>() as f64 / counts.len() as f64;
    let most = counts.max().copied().unwrap_or(0) as f64;
    writeln!(text, "\nanswers by worker (max/mean {:.2})", most / mean)?;
    for (worker, count) in &outcome.workers {
        writeln!(
            text,
            "  {worker:<12} {count:>10} {:>6.1} %",
            100.0 * *count as f64 / (mean * outcome.workers.len() as f64)
        )?;
    }
    Ok(())
}

/// What the driver says of itself, and whether the figures above are rather its own.
fn driver(text: &mut String, args: &Args, outcome: &Outcome) -> std::fmt::Result {
    let share = outcome.driver_share(args.threads);
    let lag = [0.5, 0.99, 1.0].map(|q| outcome.lag.value_at_quantile(q));
    let [half, most, all] = lag.map(time);
    writeln!(
        text,
        "\ndriver    late by p50 {half}, p99 {most}, max {all}; computed {:.0} % of the time",
        100.0 * share
    )?;
    if share > BUSY {
        writeln!(
            text,
            "warning: the driver was the bottleneck: give it more --threads, or a core of its own"
        )?;
    } else if args.arrival() != Arrival::Closed && lag[1] > LATE {
        writeln!(
            text,
            "warning: the driver woke late, which is in the latencies: give it a core of its own"
        )?;
    }
    Ok(())
}

/// A time in nanoseconds, to three digits.
fn time(nanos: u64) -> String {
    let (value, unit) = match nanos {
        0..1_000_000 => (nanos as f64 / 1e3, "us"),
        1_000_000..1_000_000_000 => (nanos as f64 / 1e6, "ms"),
        _ => (nanos as f64 / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$}{unit}")
}
