//! Lying bars, one row each, with the interval of each value.

use plotters::{prelude::*, style::text_anchor::HPos};

use super::{Area, Charts, DrawError, FAINT, INK, LABEL, Style, TITLE, short, text, write};
use crate::{Result, section::Chart, statistics::Interval};

const WIDTH: u32 = 900;

/// Pixels per row, and for title and axis.
const ROW: u32 = 30;
const FRAME: u32 = 110;

/// Pixels for the names on the left.
const NAMES: u32 = 210;

pub(crate) struct BarRow {
    pub(crate) name: String,
    pub(crate) style: Style,
    pub(crate) value: Interval,
}

/// The chart; rows with the same unit, from the top down.
pub(crate) struct Bars<'a> {
    pub(crate) title: &'a str,
    /// What is measured, with its unit.
    pub(crate) label: &'a str,
    pub(crate) rows: Vec<BarRow>,
}

impl Charts {
    pub(crate) fn bars(&self, file: &str, shows: &str, bars: &Bars<'_>) -> Result<Chart> {
        let height = FRAME + ROW * bars.rows.len() as u32;
        self.draw(file, shows, (WIDTH, height), |area| draw(&area, bars))
    }
}

fn draw(area: &Area<'_>, bars: &Bars<'_>) -> Result<(), DrawError> {
    area.fill(&WHITE)?;
    let most = bars.rows.iter().map(|row| row.value.high).fold(f64::MIN_POSITIVE, f64::max);
    let count = bars.rows.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(bars.title, text(TITLE))
        .margin(12)
        .margin_right(70)
        .x_label_area_size(44)
        .y_label_area_size(NAMES)
        .build_cartesian_2d(0.0..most * 1.02, count..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_desc(bars.label)
        .x_label_formatter(&|value| short(*value))
        .axis_desc_style(text(LABEL))
        .label_style(text(LABEL))
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .draw()?;
    for (at, row) in bars.rows.iter().enumerate() {
        let (top, middle, bottom) = (at as f64 + 0.15, at as f64 + 0.5, at as f64 + 0.85);
        let Interval { value, low, high } = row.value;
        let bar = Rectangle::new([(0.0, top), (value, bottom)], row.style.color.filled());
        let whisker = PathElement::new(vec![(low, middle), (high, middle)], INK.stroke_width(2));
        chart.plotting_area().draw(&bar)?;
        chart.plotting_area().draw(&whisker)?;
        let (left, line) = chart.backend_coord(&(0.0, middle));
        let (right, _) = chart.backend_coord(&(value.max(high), middle));
        write(area, &row.name, (left - 8, line), HPos::Right, &INK)?;
        write(area, &short(value), (right + 6, line), HPos::Left, &INK)?;
    }
    Ok(())
}
