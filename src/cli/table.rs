//! Aligned columns and the number formats of the tables. Pure.
//!
//! Invariant: a column is at least as wide as its floor, so that a watched table does not jump about.

/// Two blanks between columns, none at a line's end.
pub fn table(heads: &[(&str, usize)], rows: &[Vec<String>]) -> String {
    let widest = |i: usize| rows.iter().filter_map(|r| r.get(i)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> =
        heads.iter().enumerate().map(|(i, (head, floor))| widest(i).max(head.len()).max(*floor)).collect();
    let heads = heads.iter().map(|(head, _)| (*head).to_owned()).collect();
    std::iter::once(&heads).chain(rows).map(|row: &Vec<String>| line(row, &widths)).collect()
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let padded: Vec<String> = cells.iter().zip(widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
    format!("{}\n", padded.join("  ").trim_end())
}

/// A share as an operator sets it: `25%`, `0.5%`, `33.33%`.
pub fn share(part: f64) -> String {
    let text = format!("{:.2}", part * 100.0);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    // What is set but too small to show must not look like nothing.
    if text == "0" && part > 0.0 { "<0.01%".to_owned() } else { format!("{text}%") }
}

/// A share as it was seen: `25.0%`.
pub fn seen(part: Option<f64>) -> String {
    part.map_or_else(none, |p| format!("{:.1}%", p * 100.0))
}

/// A rate of errors: `0.02%`, `12.5%`.
pub fn rate(part: Option<f64>) -> String {
    part.map_or_else(none, |p| if p < 0.0995 { format!("{:.2}%", p * 100.0) } else { format!("{:.1}%", p * 100.0) })
}

/// A latency: `2.9ms`, `18ms`, `1.2s`.
pub fn millis(ms: Option<f64>) -> String {
    ms.map_or_else(none, |ms| match ms {
        ms if ms < 9.95 => format!("{ms:.1}ms"),
        ms if ms < 999.5 => format!("{ms:.0}ms"),
        ms => format!("{:.1}s", ms / 1000.0),
    })
}

/// Where there is no number.
pub fn none() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_in_the_samples() {
        assert_eq!(
            [0.25, 0.005, 1.0 / 3.0, 1.0, 0.0, 0.000001].map(share),
            ["25%", "0.5%", "33.33%", "100%", "0%", "<0.01%"]
        );
        assert_eq!([Some(0.2496), Some(1.0), None].map(seen), ["25.0%", "100.0%", "-"]);
        assert_eq!([Some(0.0002), Some(0.125), Some(0.0), None].map(rate), ["0.02%", "12.5%", "0.00%", "-"]);
        let times = [Some(2.94), Some(9.96), Some(18.2), Some(999.6), Some(61_000.0), None].map(millis);
        assert_eq!(times, ["2.9ms", "10ms", "18ms", "1.0s", "61.0s", "-"]);
    }

    #[test]
    fn columns_grow_with_their_cells_and_lines_have_no_tail() {
        let rows = vec![vec!["a".to_owned(), "x".to_owned()], vec!["longer".to_owned(), String::new()]];
        assert_eq!(table(&[("N", 3), ("M", 0)], &rows), "N       M\na       x\nlonger\n");
    }
}
