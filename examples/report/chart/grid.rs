//! Cells of words in rows and columns, shaded by how bad they are: the isolation matrix.

use plotters::{prelude::*, style::text_anchor::HPos};

use super::{Area, Charts, DrawError, INK, TITLE, text, write};
use crate::{Result, section::Chart};

/// Pixels: of a cell, of the names on the left, of the title with the names above.
const CELL: (u32, u32) = (210, 40);
const NAMES: u32 = 170;
const HEAD: u32 = 80;
const EDGE: u32 = 16;

/// How a cell is coloured; its words say the same, for whoever does not see colours.
#[derive(Clone, Copy)]
pub(crate) enum Shade {
    Good,
    Some,
    Bad,
    Unknown,
}

impl Shade {
    fn color(self) -> RGBColor {
        match self {
            Self::Good => RGBColor(200, 230, 205),
            Self::Some => RGBColor(250, 226, 170),
            Self::Bad => RGBColor(244, 190, 182),
            Self::Unknown => RGBColor(235, 235, 235),
        }
    }
}

pub(crate) struct GridCell {
    pub(crate) words: String,
    pub(crate) shade: Shade,
}

/// The chart.
pub(crate) struct Grid<'a> {
    pub(crate) title: &'a str,
    pub(crate) columns: Vec<String>,
    /// A name, and a cell per column.
    pub(crate) rows: Vec<(String, Vec<GridCell>)>,
}

impl Charts {
    pub(crate) fn grid(&self, file: &str, shows: &str, grid: &Grid<'_>) -> Result<Chart> {
        let width = NAMES + CELL.0 * grid.columns.len() as u32 + EDGE;
        let height = HEAD + CELL.1 * grid.rows.len() as u32 + EDGE;
        self.draw(file, shows, (width, height), |area| draw(&area, grid))
    }
}

fn draw(area: &Area<'_>, grid: &Grid<'_>) -> Result<(), DrawError> {
    area.fill(&WHITE)?;
    area.draw_text(grid.title, &text(TITLE), (EDGE as i32, 14))?;
    let corner = |row: usize, column: usize| {
        let (x, y) = (NAMES + CELL.0 * column as u32, HEAD + CELL.1 * row as u32);
        (x as i32, y as i32)
    };
    let (wide, high) = (CELL.0 as i32, CELL.1 as i32);
    for (column, name) in grid.columns.iter().enumerate() {
        let (x, y) = corner(0, column);
        write(area, name, (x + wide / 2, y - 14), HPos::Center, &INK)?;
    }
    for (row, (name, cells)) in grid.rows.iter().enumerate() {
        let (x, y) = corner(row, 0);
        write(area, name, (x - 10, y + high / 2), HPos::Right, &INK)?;
        for (column, cell) in cells.iter().enumerate() {
            let (x, y) = corner(row, column);
            let box_ = [(x + 2, y + 2), (x + wide - 2, y + high - 2)];
            area.draw(&Rectangle::new(box_, cell.shade.color().filled()))?;
            write(area, &cell.words, (x + wide / 2, y + high / 2), HPos::Center, &INK)?;
        }
    }
    Ok(())
}
