//! What the cells of E3 found together: its tables, its charts, and what follows.

use bimodal::Scheduling;

use super::{COMPARED, LONG, Point, SMALL, Sweep, model};
use crate::{
    Result,
    chart::{Axis, Charts, Lines, Series, Style},
    choice,
    measure::{self, Measured},
    model::quantile,
    plan::{MODES, POLICIES, mode_and_policy},
    results::Results,
    section::{Bar, Chart, Decision, Table, time},
    statistics::median,
};

pub(super) struct Found {
    arms: Vec<(String, Vec<Sweep>)>,
}

type Which = fn(&Sweep) -> &Vec<Point>;

impl Found {
    pub(super) fn of(results: &Results) -> Result<Self> {
        let arm = |arm: &str| Ok((arm.to_owned(), results.of(arm)?));
        let arms = results.arms().into_iter();
        Ok(Self { arms: arms.map(arm).collect::<Result<_>>()? })
    }

    /// The median over the rounds of a figure at a load; NaN where there is none.
    fn at(&self, arm: &str, which: Which, percent: u32, of: fn(&Point) -> f64) -> f64 {
        let rounds = self.arms.iter().filter(|(name, _)| name == arm).flat_map(|(_, all)| all);
        let points = rounds.flat_map(which).filter(|point| point.percent == percent);
        median(&points.map(of).collect::<Vec<_>>())
    }

    pub(super) fn small(&self) -> Table {
        let head: Vec<_> = SMALL.iter().map(|percent| format!("{percent} %")).collect();
        let head: Vec<_> =
            ["small: p50, p99"].into_iter().chain(head.iter().map(String::as_str)).collect();
        let mut table = Table::new("", &head);
        for (arm, _) in &self.arms {
            let cell = |percent| {
                let at = |of| self.at(arm, |sweep| &sweep.small, percent, of);
                format!(
                    "{}, {}",
                    time(at(|point| point.measured.p50)),
                    time(at(|point| point.measured.p99))
                )
            };
            table.row([arm.clone()].into_iter().chain(SMALL.map(cell)));
        }
        table
    }

    pub(super) fn long(&self) -> Table {
        let loads = ["30 %", "60 %", "80 %", "90 %"];
        let more = ["failed", "unsent", "driver late (p99)"];
        let head: Vec<_> = ["long: p50, p99"].into_iter().chain(loads).chain(more).collect();
        let mut table = Table::new("", &head);
        for (arm, rounds) in &self.arms {
            let cell = |percent| {
                let at = |of| self.at(arm, |sweep| &sweep.long, percent, of);
                format!(
                    "{}, {}",
                    time(at(|point| point.measured.p50)),
                    time(at(|point| point.measured.p99))
                )
            };
            let points = rounds.iter().flat_map(|sweep| sweep.small.iter().chain(&sweep.long));
            let points = points.map(|point| &point.measured);
            let count = |count: fn(&Measured) -> u64| points.clone().map(count).sum::<u64>();
            let (lost, unsent) = (count(Measured::failed), count(Measured::unsent));
            let lag = self.at(arm, |sweep| &sweep.long, COMPARED, |point| point.measured.lag);
            let row = [arm.clone()].into_iter().chain(LONG.map(cell));
            let more = [(lost - unsent).to_string(), unsent.to_string(), time(lag)];
            table.row(row.chain(more));
        }
        for policy in POLICIES {
            let cell = |percent| {
                let all = model(policy, percent);
                format!("{}, {}", time(quantile(&all, 0.5)), time(quantile(&all, 0.99)))
            };
            let row = [format!("model, {policy}")].into_iter().chain(LONG.map(cell));
            table.row(row.chain([const { String::new() }; 3]));
        }
        table
    }

    pub(super) fn charts(&self, charts: &Charts) -> Result<Vec<Chart>> {
        Ok(vec![
            charts.lines(
                "e3-small.svg",
                "p99 of small requests against load",
                &self.small_chart(),
            )?,
            charts.lines("e3-long.svg", "p99 of long requests against load", &self.long_chart())?,
            charts.lines(
                "e3-tail.svg",
                "how many long requests take longer than a time",
                &self.tail_chart(),
            )?,
        ])
    }

    fn series(&self, which: Which, percents: &[u32]) -> Vec<Series> {
        let series = |(arm, _): &(String, Vec<Sweep>)| {
            let (mode, policy) = mode_and_policy(arm)?;
            let point = |percent: &u32| {
                (
                    f64::from(*percent),
                    self.at(arm, which, *percent, |point| point.measured.p99) * 1e3,
                )
            };
            let points = percents.iter().map(point).collect();
            Some(Series { name: arm.clone(), style: Style::policy(mode, policy), points })
        };
        self.arms.iter().filter_map(series).collect()
    }

    fn small_chart(&self) -> Lines<'static> {
        Lines {
            title: "Small requests on open connections: p99",
            x: Axis::linear("load, % of the closed loop's rate"),
            y: Axis::log("p99 from the intended time, ms"),
            series: self.series(|sweep| &sweep.small, &SMALL),
            marks: Vec::new(),
        }
    }

    fn long_chart(&self) -> Lines<'static> {
        let mut series = self.series(|sweep| &sweep.long, &LONG);
        for (number, policy) in [Scheduling::Shared, Scheduling::ReusePort].into_iter().enumerate()
        {
            let p99 = |percent| quantile(&model(policy, percent), 0.99) * 1e3;
            let points = LONG.map(|percent| (f64::from(percent), p99(percent))).to_vec();
            series.push(Series {
                name: format!("model, {policy}"),
                style: Style::other(number),
                points,
            });
        }
        Lines {
            title: "Requests that compute for 1, 3 or 8 ms, a connection each: p99",
            x: Axis::linear("load, % of two workers' time"),
            y: Axis::log("p99 from the intended time, ms"),
            series,
            marks: Vec::new(),
        }
    }

    fn tail_chart(&self) -> Lines<'static> {
        let series = |(arm, rounds): &(String, Vec<Sweep>)| {
            let (mode, policy) = mode_and_policy(arm)?;
            let last = rounds.last()?.long.iter().find(|point| point.percent == COMPARED)?;
            let points = last.tail.iter().map(|(time, part)| (time * 1e3, *part)).collect();
            Some(Series { name: arm.clone(), style: Style::policy(mode, policy), points })
        };
        Lines {
            title: "Requests that compute for 1, 3 or 8 ms, 80 % load: the tail",
            x: Axis::log("time from the intended time, ms"),
            y: Axis::log("part of all requests that take longer"),
            series: self.arms.iter().filter_map(series).collect(),
            marks: Vec::new(),
        }
    }

    /// The p99 of long requests at the load that is compared, with the arm, the best first.
    fn order(&self) -> Vec<(f64, &str)> {
        let p99 =
            |arm: &str| self.at(arm, |sweep| &sweep.long, COMPARED, |point| point.measured.p99);
        let mut order: Vec<_> = self.arms.iter().map(|(arm, _)| (p99(arm), arm.as_str())).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        order
    }

    /// Whether one queue is better than chance, in every mode that was measured; the ratio of the worst.
    fn chance_over_one_queue(&self) -> Option<f64> {
        let p99 =
            |arm: String| self.at(&arm, |sweep| &sweep.long, COMPARED, |point| point.measured.p99);
        let ratio = |mode| p99(format!("{mode}/reuse-port")) / p99(format!("{mode}/shared"));
        MODES.into_iter().map(ratio).filter(|ratio| ratio.is_finite()).reduce(f64::min)
    }

    pub(super) fn meaning(&self) -> Vec<String> {
        let order: Vec<_> =
            self.order().iter().map(|(p99, arm)| format!("`{arm}` {}", time(*p99))).collect();
        let mut lines = vec![format!(
            "p99 of long requests at {COMPARED} % load, the shortest first: {}.",
            order.join(", ")
        )];
        if let Some(ratio) = self.chance_over_one_queue() {
            lines.push(format!(
                "Chance (`reuse-port`) has {ratio:.1} times the p99 of one queue (`shared`) at {COMPARED} % load, in the mode where \
                 that is least; in the model {:.1} times.",
                quantile(&model(Scheduling::ReusePort, COMPARED), 0.99)
                    / quantile(&model(Scheduling::Shared, COMPARED), 0.99)
            ));
        }
        let points = self.arms.iter().flat_map(|(_, rounds)| rounds);
        let points = points.flat_map(|sweep| sweep.small.iter().chain(&sweep.long));
        lines.extend(measure::doubt(points.map(|point| &point.measured)));
        lines
    }

    pub(super) fn bar(&self) -> Bar {
        let ratio = self.chance_over_one_queue();
        Bar {
            aim: format!(
                "at {COMPARED} % load the p99 under `shared` is below that under `reuse-port`, as in the model, in both modes"
            ),
            measured: ratio.map_or("-".into(), |ratio| format!("{ratio:.2} times at least")),
            met: ratio.map(|ratio| ratio > 1.0),
        }
    }

    pub(super) fn decision(&self) -> Decision {
        let best = choice::least(self.order().into_iter());
        let why = format!("p99 {} at {COMPARED} % load, the shortest", time(best.value));
        best.decision("even latency of requests that compute, a connection each", &why)
    }
}
