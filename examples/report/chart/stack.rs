//! Standing bars of several parts: what memory consists of.

use plotters::{prelude::*, style::text_anchor::HPos};

use super::{
    Area, Charts, DrawError, FAINT, INK, LABEL, LEGEND, SIZE, Style, TITLE, legend, short, text,
    write,
};
use crate::{Result, section::Chart};

/// A part that every bar has.
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) style: Style,
}

/// The chart; each bar has a name and a value per part, from the bottom up.
pub(crate) struct Stack<'a> {
    pub(crate) title: &'a str,
    /// What is measured, with its unit.
    pub(crate) label: &'a str,
    pub(crate) parts: Vec<Part>,
    pub(crate) bars: Vec<(String, Vec<f64>)>,
}

impl Charts {
    pub(crate) fn stack(&self, file: &str, shows: &str, stack: &Stack<'_>) -> Result<Chart> {
        self.draw(file, shows, SIZE, |area| draw(&area, stack))
    }
}

fn draw(area: &Area<'_>, stack: &Stack<'_>) -> Result<(), DrawError> {
    area.fill(&WHITE)?;
    let (plot, beside) = area.split_horizontally(SIZE.0 - LEGEND);
    let sums = stack.bars.iter().map(|(_, values)| values.iter().sum::<f64>());
    let most = sums.fold(f64::MIN_POSITIVE, f64::max);
    let mut chart = ChartBuilder::on(&plot)
        .caption(stack.title, text(TITLE))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..stack.bars.len() as f64, 0.0..most * 1.1)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_desc(stack.label)
        .y_label_formatter(&|value| short(*value))
        .axis_desc_style(text(LABEL))
        .label_style(text(LABEL))
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .draw()?;
    for (at, (name, values)) in stack.bars.iter().enumerate() {
        let (left, middle, right) = (at as f64 + 0.15, at as f64 + 0.5, at as f64 + 0.85);
        let mut from = 0.0;
        for (value, part) in values.iter().zip(&stack.parts) {
            let piece = [(left, from), (right, from + value)];
            from += value;
            chart.plotting_area().draw(&Rectangle::new(piece, part.style.color.filled()))?;
        }
        let (x, y) = chart.backend_coord(&(middle, from));
        write(area, &short(from), (x, y - 10), HPos::Center, &INK)?;
        let (x, y) = chart.backend_coord(&(middle, 0.0));
        write(area, name, (x, y + 16), HPos::Center, &INK)?;
    }
    legend(&beside, stack.parts.iter().map(|part| (part.name.as_str(), part.style)))
}
