//! A table of text: columns as wide as their widest cell, two blanks between.
//!
//! Owns alignment only. Draws no lines, so that `awk` and `cut` can read it too.

/// Lays out `head` and `rows`; numbers (cells of digits and commas) stand to the right.
///
/// A row with fewer cells than the head ends early; cells beyond the head are left out.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width_of = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .chain([head[column].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width_of).collect();
    let numeric: Vec<bool> = (0..head.len())
        .map(|column| rows.iter().filter_map(|row| row.get(column)).all(|cell| is_number(cell)))
        .collect();
    let mut out = String::new();
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (column, cell) in row.iter().take(widths.len()).enumerate() {
            let gap = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            let (before, after) = if numeric[column] { (&*gap, "") } else { ("", &*gap) };
            line.push_str(&format!("{before}{cell}{after}  "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn is_number(cell: &str) -> bool {
    !cell.is_empty() && cell.chars().all(|c| c.is_ascii_digit() || c == ',')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![
            vec!["shop.orders".into(), "1,234".into(), "running".into()],
            vec!["shop.größe".into(), "9".into(), "dead".into()],
        ];
        assert_eq!(
            table(&["TABLE", "ROWS", "STATE"], &rows),
            "\
TABLE         ROWS  STATE
shop.orders  1,234  running
shop.größe       9  dead
"
        );
    }

    #[test]
    fn without_rows_there_is_the_head() {
        assert_eq!(table(&["A", "B"], &[]), "A  B\n");
    }
}
