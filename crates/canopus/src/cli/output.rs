//! Writing to standard output. A reader that went away (`| head`) ends the program quietly.

use anyhow::{Context, Result};
use std::io::{ErrorKind, Write};

pub fn print(text: &str) -> Result<()> {
    write_stdout(text.as_bytes())
}

pub fn write_stdout(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.context("failed to write to standard output"),
    }
}

/// `rows` as columns three spaces apart, as kubectl prints them: every cell padded but the last of a row.
pub fn columns(rows: &[Vec<String>]) -> String {
    columns_below(rows, &mut Vec::new())
}

/// The same below rows that were printed before and are as wide as `widths` says, which then counts these too.
pub fn columns_below(rows: &[Vec<String>], widths: &mut Vec<usize>) -> String {
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text += cell;
            if column + 1 < row.len() {
                text.extend(std::iter::repeat_n(' ', widths[column] + 3 - cell.chars().count()));
            }
        }
        text.push('\n');
    }
    text
}

/// A size as people write it: `4.27MB`.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes}B") } else { format!("{size:.2}{}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["NAME".into(), "AGE".into()], vec!["a-long-name".into(), "1s".into()]];
        assert_eq!(columns(&rows), "NAME          AGE\na-long-name   1s\n");
        let mut widths = vec![6];
        assert_eq!(columns_below(&[vec!["a".into(), "1s".into()]], &mut widths), "a        1s\n");
        assert_eq!(widths, [6, 2]);
    }

    #[test]
    fn sizes() {
        let shown: Vec<String> = [0, 999, 1000, 4_273_000, 12_000_000_000].into_iter().map(human_size).collect();
        assert_eq!(shown, ["0B", "999B", "1.00kB", "4.27MB", "12.00GB"]);
    }
}
