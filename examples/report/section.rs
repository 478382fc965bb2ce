//! A section of the report: what an experiment found, before it is text.

use std::fmt::Write as _;

/// What an experiment writes. The document adds the title, the question and where the figures come from.
#[derive(Default)]
pub(crate) struct Section {
    /// What was done, as a paragraph.
    pub(crate) setup: String,
    pub(crate) tables: Vec<Table>,
    pub(crate) charts: Vec<Chart>,
    /// What it means, each computed from the figures.
    pub(crate) meaning: Vec<String>,
    /// What would overturn it.
    pub(crate) overturn: Vec<String>,
    /// The aims that it decides.
    pub(crate) bars: Vec<Bar>,
    /// The rows that it gives to the decision table.
    pub(crate) decisions: Vec<Decision>,
    /// Explanations that no figure here shows, in Markdown; they name their own source.
    pub(crate) notes: &'static str,
}

/// An aim.
pub(crate) struct Bar {
    pub(crate) aim: String,
    pub(crate) measured: String,
    /// `None` when there are no figures, or not enough to decide it.
    pub(crate) met: Option<bool>,
}

/// A row of the decision table.
pub(crate) struct Decision {
    pub(crate) need: String,
    pub(crate) mode: String,
    pub(crate) scheduling: String,
    pub(crate) why: String,
}

/// A picture that was drawn.
pub(crate) struct Chart {
    /// Its name in the results' folder.
    pub(crate) file: String,
    /// What it shows, in words.
    pub(crate) shows: String,
}

/// Rows under a head. The first column is text; the others are numbers.
pub(crate) struct Table {
    pub(crate) caption: String,
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(caption: impl Into<String>, head: &[&str]) -> Self {
        let head = head.iter().map(|cell| (*cell).to_owned()).collect();
        Self { caption: caption.into(), head, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        if !self.caption.is_empty() {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "{}\n", self.caption);
        }
        text += &line(&self.head);
        let rule = self.head.iter().skip(1).map(|_| "---:|");
        let _ = writeln!(text, "|---|{}", rule.collect::<String>());
        self.rows.iter().for_each(|row| text += &line(row));
        text
    }
}

/// A time in seconds with a unit that people read: `12.3 us`, `4.56 ms`, `1.20 s`.
pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        s if s.is_nan() => "-".to_owned(),
        s if s < 1e-6 => format!("{:.1} ns", s * 1e9),
        s if s < 1e-3 => format!("{:.1} us", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// A count with its thousands apart: `12 345`.
pub(crate) fn count(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 && digit.is_ascii_digit() && !text.ends_with('-')
        {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}
