//! A table that fits the terminal: names give way, figures never. Pure.

use std::io::{self, IsTerminal as _};

/// Where no terminal says it.
const WIDTH: usize = 80;
/// Between columns.
const GAP: &str = "  ";
/// A name is cut no shorter.
const SHORTEST: usize = 8;

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    /// Cut where there is no room.
    Name(&'static str),
    /// A word.
    Word(&'static str),
    /// Set to the right.
    Figure(&'static str),
}

/// How wide tables may be: as the terminal, if it is one; whatever else reads them gets whole names.
pub(super) fn width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let columns = rustix::termios::tcgetwinsize(io::stdout()).map(|size| usize::from(size.ws_col));
    Some(columns.ok().filter(|columns| *columns > 0).unwrap_or(WIDTH))
}

/// The lines of a table, no longer than `width` unless figures alone are.
pub(super) fn table(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> String {
    let mut widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
            cells.chain([column.title().chars().count()]).max().unwrap_or_default()
        })
        .collect();
    if let Some(width) = width {
        shrink(columns, &mut widths, width);
    }
    let mut text = String::new();
    let titles: Vec<String> = columns.iter().map(|column| column.title().to_owned()).collect();
    for row in [&titles].into_iter().chain(rows) {
        let cells = columns.iter().zip(row).zip(&widths).map(|((column, cell), width)| match column {
            Column::Figure(_) => format!("{cell:>width$}"),
            Column::Name(_) | Column::Word(_) => format!("{:<width$}", cut(cell, *width)),
        });
        let line = cells.collect::<Vec<_>>().join(GAP);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

impl Column {
    fn title(self) -> &'static str {
        let (Self::Name(title) | Self::Word(title) | Self::Figure(title)) = self;
        title
    }
}

// The longest name gives first.
fn shrink(columns: &[Column], widths: &mut [usize], width: usize) {
    loop {
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        if widths.iter().sum::<usize>() + gaps <= width {
            return;
        }
        let names =
            columns.iter().zip(widths.iter_mut()).filter(|(column, _)| matches!(column, Column::Name(_)));
        match names.map(|(_, width)| width).max() {
            Some(longest) if *longest > SHORTEST => *longest -= 1,
            _ => return,
        }
    }
}

// The end of a name tells more than its beginning.
fn cut(cell: &str, width: usize) -> String {
    let length = cell.chars().count();
    if length <= width {
        return cell.to_owned();
    }
    let tail: String = cell.chars().skip(length - width.saturating_sub(1)).collect();
    format!("…{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [Column::Name("FROM"), Column::Word("TLS"), Column::Figure("REQ/S")];

    fn rows() -> Vec<Vec<String>> {
        let row = |name: &str, rate: &str| vec![name.to_owned(), "mtls".to_owned(), rate.to_owned()];
        vec![row("a-namespace-with-a-long-name/web", "0.1"), row("shop/web", "12345.6")]
    }

    #[test]
    fn names_give_way_until_the_table_fits() {
        let text = table(&COLUMNS, &rows(), Some(30));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "FROM             TLS     REQ/S",
                "…-long-name/web  mtls      0.1",
                "shop/web         mtls  12345.6"
            ]
        );
        assert!(text.lines().all(|line| line.chars().count() <= 30));
    }

    #[test]
    fn whoever_is_no_terminal_reads_whole_names() {
        let text = table(&COLUMNS, &rows(), None);
        assert!(text.contains("a-namespace-with-a-long-name/web  mtls"), "{text}");
    }

    #[test]
    fn a_width_that_nothing_fits_cuts_names_and_keeps_figures() {
        let text = table(&COLUMNS, &rows(), Some(1));
        assert!(text.contains("…ame/web") && text.contains("12345.6"), "{text}");
    }
}
