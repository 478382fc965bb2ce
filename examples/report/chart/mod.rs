//! Charts as SVG: a white ground that also reads on a dark page, one colour per mode and one line per policy everywhere.

mod bars;
mod grid;
mod lines;
mod stack;

use std::{
    error::Error,
    path::{Path, PathBuf},
};

use bimodal::{Mode, Scheduling};
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

pub(crate) use bars::{BarRow, Bars};
pub(crate) use grid::{Grid, GridCell, Shade};
pub(crate) use lines::{Axis, Lines, Series};
pub(crate) use stack::{Part, Stack};

use crate::{Result, section::Chart};

/// Width and height of every chart but those with rows, in pixels.
const SIZE: (u32, u32) = (900, 460);

/// The width of a legend, and the height of a line of text in it.
const LEGEND: u32 = 220;
const ROW: i32 = 20;

const FONT: &str = "sans-serif";

/// Sizes of text, in pixels.
const TITLE: u32 = 18;
const LABEL: u32 = 13;

const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(222, 222, 222);

/// How a series is drawn.
#[derive(Clone, Copy)]
pub(crate) struct Style {
    pub(crate) color: RGBColor,
    /// Length of a dash and of the gap behind it, in pixels; `None` is a line without gaps.
    pub(crate) dash: Option<(i32, i32)>,
}

impl Style {
    pub(crate) fn mode(mode: Mode) -> Self {
        let color = match mode {
            Mode::Process => RGBColor(31, 111, 180),
            Mode::Thread => RGBColor(217, 101, 11),
        };
        Self { color, dash: None }
    }

    pub(crate) fn policy(mode: Mode, policy: Scheduling) -> Self {
        let dash = match policy {
            Scheduling::RoundRobin => Some((9, 4)),
            Scheduling::LeastConnections => Some((4, 4)),
            Scheduling::Shared => None,
            Scheduling::ReusePort => Some((2, 5)),
        };
        Self { dash, ..Self::mode(mode) }
    }

    /// A program that is not bimodal's, or a model: the same grey for the same number.
    pub(crate) fn other(number: usize) -> Self {
        const GREYS: [RGBColor; 5] = [
            RGBColor(95, 95, 95),
            RGBColor(60, 130, 80),
            RGBColor(150, 90, 160),
            RGBColor(160, 140, 40),
            RGBColor(150, 150, 150),
        ];
        Self { color: GREYS[number % GREYS.len()], dash: None }
    }
}

/// Where charts are drawn.
pub(crate) struct Charts {
    folder: PathBuf,
}

impl Charts {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Draws with `draw` on an empty chart of this size.
    fn draw<E: Error + Send + Sync + 'static>(
        &self,
        file: &str,
        shows: &str,
        size: (u32, u32),
        draw: impl FnOnce(Area<'_>) -> Result<(), E>,
    ) -> Result<Chart> {
        let mut text = String::new();
        draw(SVGBackend::with_string(&mut text, size).into_drawing_area())?;
        std::fs::write(self.folder.join(file), text)?;
        Ok(Chart { file: file.to_owned(), shows: shows.to_owned() })
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// What drawing can fail with; a text never does.
type DrawError = DrawingAreaErrorKind<std::io::Error>;

fn text<'a>(size: u32) -> TextStyle<'a> {
    (FONT, size).into_font().color(&INK)
}

/// A short text whose middle, or whose left end, stands at a pixel.
fn write(
    area: &Area<'_>,
    words: &str,
    at: (i32, i32),
    from: HPos,
    color: &RGBColor,
) -> Result<(), DrawError> {
    let style = (FONT, LABEL).into_font().color(color).pos(Pos::new(from, VPos::Center));
    area.draw_text(words, &style, at)
}

/// A number on an axis: as short as it can be without losing what it says.
fn short(value: f64) -> String {
    let (size, sign) = (value.abs(), if value < 0.0 { "-" } else { "" });
    let trim = |text: String| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    let digits = match size {
        0.0 => "0".to_owned(),
        s if s >= 1e6 => format!("{} M", trim(format!("{:.2}", s / 1e6))),
        s if s >= 1e4 => format!("{} k", trim(format!("{:.1}", s / 1e3))),
        s if s >= 10.0 => trim(format!("{s:.1}")),
        s => trim(format!("{s:.4}")),
    };
    format!("{sign}{digits}")
}

/// Names beside a piece of their line.
fn legend<'a>(
    area: &Area<'_>,
    entries: impl Iterator<Item = (&'a str, Style)>,
) -> Result<(), DrawError> {
    const TOP: i32 = 50;
    const WIDTH: i32 = 34;
    for (row, (name, style)) in entries.enumerate() {
        let y = TOP + row as i32 * ROW;
        let (dash, gap) = style.dash.unwrap_or((WIDTH, 0));
        let mut from = 0;
        while from < WIDTH {
            let to = (from + dash).min(WIDTH);
            let line = style.color.stroke_width(3);
            area.draw(&PathElement::new(vec![(from, y), (to, y)], line))?;
            from += dash + gap;
        }
        write(area, name, (WIDTH + 8, y), HPos::Left, &INK)?;
    }
    Ok(())
}
