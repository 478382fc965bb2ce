//! From figures to a verdict, without an arm.

use std::collections::BTreeMap;

use super::{
    Blast, Comparison, Fault, Round, Side,
    verdict::{chance, findings, recommend},
};
use crate::config::Mode;

/// Rounds that differ by a little, in figures of this size.
fn side(change: impl Fn(&mut Round)) -> Side {
    let rounds = [100.0, 101.0, 103.0, 102.0].map(|value| {
        let mut round = Round {
            capacity_per_second: value,
            p50_us: value,
            p99_us: value,
            p999_us: value,
            cpu_us_per_request: value,
            pss_bytes: value,
            private_bytes: value,
            start_ms: value,
            answered: 1,
            failures: BTreeMap::new(),
            driver_late_us: 0.0,
            ended: Vec::new(),
        };
        change(&mut round);
        round
    });
    let blasts = vec![Blast {
        fault: Fault::Abort,
        survived: true,
        exit: None,
        due: 10,
        failed: 3,
        failures: BTreeMap::from([("reset".into(), 3)]),
        full_strength_ms: Some(4.5),
    }];
    Side { rounds: rounds.into(), blasts, ..Side::default() }
}

fn same() -> Side {
    side(|_| ())
}

fn failed(cause: &str) -> Side {
    Side { failed: Some(cause.into()), ..Side::default() }
}

fn comparison(process: Side, thread: Side) -> Comparison {
    let findings = findings(&process, &thread);
    let recommendation = recommend(&process, &thread, &findings);
    Comparison {
        what: "GET /".into(),
        workers: 2,
        connections: 8,
        rounds: 4,
        time_s: 1.0,
        rate_per_second: 50.0,
        process,
        thread,
        findings,
        recommendation,
    }
}

fn mode(process: Side, thread: Side) -> Option<Mode> {
    comparison(process, thread).recommendation.mode
}

#[test]
fn chance_is_that_of_one_side_below_the_other() {
    for (rounds, orders) in [(2, 6.0), (3, 20.0), (4, 70.0), (5, 252.0)] {
        assert!((chance(rounds) - 2.0 / orders).abs() < 1e-12, "{rounds}");
    }
    assert!(chance(32) > 0.0);
}

#[test]
fn what_does_not_differ_is_said_so_and_processes_keep_more_to_themselves() {
    let comparison = comparison(same(), same());
    assert!(comparison.findings.iter().all(|finding| finding.better.is_none()));
    assert_eq!(comparison.recommendation.mode, Some(Mode::Process));
    let text = comparison.to_string();
    assert!(text.contains("no difference beyond the noise: p50, p99, p99.9, CPU"), "{text}");
    assert!(text.contains("2.9 % of figures"), "{text}");
}

#[test]
fn a_difference_counts_beyond_the_noise_and_from_a_tenth_on() {
    let cheaper = |by: f64| side(move |round| round.cpu_us_per_request /= by);
    assert_eq!(mode(same(), cheaper(1.2)), Some(Mode::Thread));
    // Beyond the noise, and too little.
    let little = comparison(same(), cheaper(1.05));
    let cpu = &little.findings[3];
    assert_eq!((cpu.better, cpu.counts), (Some(Mode::Thread), false));
    assert_eq!(little.recommendation.mode, Some(Mode::Process));
    // Much in the middle, and within the noise.
    let wild = side(|round| round.cpu_us_per_request = (round.cpu_us_per_request - 99.0) * 30.0);
    assert_eq!(comparison(same(), wild).findings[3].better, None);
    // More is better of capacity alone.
    assert_eq!(mode(same(), side(|round| round.capacity_per_second *= 2.0)), Some(Mode::Thread));
    assert_eq!(mode(same(), side(|round| round.capacity_per_second /= 2.0)), Some(Mode::Process));
}

#[test]
fn memory_counts_when_it_is_much() {
    let bytes = |bytes: f64| side(move |round| round.pss_bytes *= bytes);
    assert_eq!(mode(bytes(3e3), bytes(1e3)), Some(Mode::Process), "little");
    assert_eq!(mode(bytes(3e6), bytes(1e6)), Some(Mode::Thread), "200 MB");
    assert_eq!(mode(bytes(3e6), bytes(2e6)), Some(Mode::Process), "less than twice");
}

#[test]
fn where_each_is_better_nobody_is_recommended() {
    let process = side(|round| round.p99_us *= 2.0);
    let thread = side(|round| round.capacity_per_second /= 2.0);
    let comparison = comparison(process, thread);
    assert_eq!(comparison.recommendation.mode, None);
    let text = comparison.to_string();
    assert!(text.contains("thread is better: p99, 102 us against 203 us, 2.00 times\n"), "{text}");
    assert!(text.contains("process is better: capacity"), "{text}");
}

#[test]
fn a_mode_that_fails_leaves_the_other_one_with_the_reason() {
    for (process, thread, other) in
        [(failed("no luck"), same(), Mode::Thread), (same(), failed("no luck"), Mode::Process)]
    {
        let comparison = comparison(process, thread);
        assert_eq!(comparison.recommendation.mode, Some(other));
        let text = comparison.to_string();
        assert_eq!(text.matches("no luck").count(), 2, "{text}");
        assert!(text.contains("not measured"), "{text}");
    }
}

#[test]
fn failing_answers_and_faults_are_shown_by_kind() {
    let mut thread = side(|round| {
        round.failures.insert("status".into(), 2);
        round.ended.push("worker 1 ended with code 1".into());
    });
    thread.blasts[0].exit = Some("signal 6".into());
    thread.blasts[0].survived = false;
    thread.blasts[0].full_strength_ms = None;
    let text = comparison(same(), thread).to_string();
    for phrase in [
        "thread: without a fault, 8 status requests failed and 4 workers ended",
        "abort in process mode: the program went on, 3 of 10 requests failed (of the whole load: 3 reset), at full strength after 4.50 ms",
        "abort in thread mode: the program ended (signal 6), 3 of 10",
        "not at full strength again",
    ] {
        assert!(text.contains(phrase), "{phrase}\n{text}");
    }
}

#[test]
fn a_late_driver_is_owned_up_to() {
    let late = comparison(same(), side(|round| round.driver_late_us = 5e3)).to_string();
    assert!(late.contains("thread: the load driver itself was late by up to 5.00 ms"), "{late}");
    assert!(!comparison(same(), same()).to_string().contains("late by"));
}

#[test]
fn the_table_is_ninety_columns_wide() {
    let bytes = |bytes: f64| side(move |round| round.pss_bytes *= bytes);
    let text = comparison(bytes(2e7), bytes(1e7)).to_string();
    let table: Vec<_> = text.lines().skip(3).take_while(|line| !line.is_empty()).collect();
    assert_eq!(table.len(), 1 + 8 + 2 * 3 + 1, "{text}");
    assert!(table.iter().all(|line| line.chars().count() <= 90), "{text}");
}
