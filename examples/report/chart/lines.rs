//! Lines over one axis: latency against load, a distribution's tail, a timeline.

use plotters::{
    coord::{
        cartesian::Cartesian2d,
        ranged1d::{AsRangedCoord, Ranged, ValueFormatter},
    },
    prelude::*,
};

use super::{
    Area, Charts, DrawError, FAINT, INK, LABEL, LEGEND, ROW, SIZE, Style, TITLE, legend, short,
    text,
};
use crate::{Result, section::Chart};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    /// Values that are not positive are left out.
    Log,
}

pub(crate) struct Axis<'a> {
    /// What it is, with the unit.
    pub(crate) label: &'a str,
    pub(crate) scale: Scale,
}

impl<'a> Axis<'a> {
    pub(crate) fn linear(label: &'a str) -> Self {
        Self { label, scale: Scale::Linear }
    }

    pub(crate) fn log(label: &'a str) -> Self {
        Self { label, scale: Scale::Log }
    }

    fn shows(&self, value: f64) -> bool {
        value.is_finite() && (self.scale == Scale::Linear || value > 0.0)
    }

    /// From the least to the greatest; a linear axis begins at 0.
    fn range(&self, values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
        let (low, high) = values
            .filter(|value| self.shows(*value))
            .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        match self.scale {
            _ if low > high => 1.0..10.0,
            Scale::Linear => low.min(0.0)..(high * 1.05).max(low + 1e-9),
            Scale::Log => low * 0.8..high * 1.25,
        }
    }
}

pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) style: Style,
    pub(crate) points: Vec<(f64, f64)>,
}

/// The chart; a mark is a vertical line at x, with words.
pub(crate) struct Lines<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: Axis<'a>,
    pub(crate) y: Axis<'a>,
    pub(crate) series: Vec<Series>,
    pub(crate) marks: Vec<(f64, String)>,
}

impl Charts {
    pub(crate) fn lines(&self, file: &str, shows: &str, lines: &Lines<'_>) -> Result<Chart> {
        self.draw(file, shows, SIZE, |area| {
            let points = || lines.shown();
            let marks = lines.marks.iter().map(|(at, _)| *at);
            let x = lines.x.range(points().map(|point| point.0).chain(marks));
            let y = lines.y.range(points().map(|point| point.1));
            match (lines.x.scale, lines.y.scale) {
                (Scale::Linear, Scale::Linear) => draw(&area, lines, x, y),
                (Scale::Linear, Scale::Log) => draw(&area, lines, x, y.log_scale()),
                (Scale::Log, Scale::Linear) => draw(&area, lines, x.log_scale(), y),
                (Scale::Log, Scale::Log) => draw(&area, lines, x.log_scale(), y.log_scale()),
            }
        })
    }
}

fn draw<X, Y>(area: &Area<'_>, lines: &Lines<'_>, x: X, y: Y) -> Result<(), DrawError>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    area.fill(&WHITE)?;
    let (plot, beside) = area.split_horizontally(SIZE.0 - LEGEND);
    let mut chart = ChartBuilder::on(&plot)
        .caption(lines.title, text(TITLE))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(70)
        .build_cartesian_2d(x, y)?;
    mesh(&mut chart, lines)?;
    for series in &lines.series {
        let points: Vec<_> = lines.shown_of(series).copied().collect();
        let line = series.style.color.stroke_width(2);
        match series.style.dash {
            None => chart.draw_series(LineSeries::new(points, line))?,
            Some((dash, gap)) => {
                chart.draw_series(DashedLineSeries::new(points, dash, gap, line))?
            }
        };
    }
    let pixels = chart.plotting_area().get_y_axis_pixel_range();
    let (top, bottom) = (pixels.start.min(pixels.end), pixels.start.max(pixels.end));
    let level = lines.lowest();
    for (row, (at, words)) in lines.marks.iter().enumerate() {
        let (column, _) = chart.backend_coord(&(*at, level));
        area.draw(&PathElement::new(vec![(column, top), (column, bottom)], INK.mix(0.5)))?;
        area.draw_text(words, &text(LABEL), (column + 4, top + 4 + row as i32 * ROW))?;
    }
    let entries = lines.series.iter().map(|series| (series.name.as_str(), series.style));
    legend(&beside, entries)
}

fn mesh<X, Y>(
    chart: &mut ChartContext<'_, SVGBackend<'_>, Cartesian2d<X, Y>>,
    lines: &Lines<'_>,
) -> Result<(), DrawError>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let format = |value: &f64| short(*value);
    chart
        .configure_mesh()
        .x_desc(lines.x.label)
        .y_desc(lines.y.label)
        .x_label_formatter(&format)
        .y_label_formatter(&format)
        .axis_desc_style(text(LABEL))
        .label_style(text(LABEL))
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .draw()
}

impl Lines<'_> {
    /// The points that both axes can show.
    fn shown(&self) -> impl Iterator<Item = &(f64, f64)> {
        self.series.iter().flat_map(|series| self.shown_of(series))
    }

    fn shown_of<'a>(&'a self, series: &'a Series) -> impl Iterator<Item = &'a (f64, f64)> {
        let is_shown = |point: &&(f64, f64)| self.x.shows(point.0) && self.y.shows(point.1);
        series.points.iter().filter(is_shown)
    }

    /// A value that the y axis has.
    fn lowest(&self) -> f64 {
        self.shown().map(|point| point.1).reduce(f64::min).unwrap_or(1.0)
    }
}
