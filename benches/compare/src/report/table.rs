//! Tables in Markdown, and numbers in them.

use std::fmt;

pub(super) struct Table {
    rows: Vec<Vec<String>>,
    is_left_aligned: bool,
}

impl Table {
    pub(super) fn new<S: ToString>(head: &[S]) -> Table {
        let head = head.iter().map(S::to_string).collect();
        Table { rows: vec![head], is_left_aligned: false }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Columns after the first are aligned to the right, as numbers are, unless this is called.
    pub(super) fn left_aligned(&mut self) {
        self.is_left_aligned = true;
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, rows) = self.rows.split_first().expect("it is made with its head");
        let others = if self.is_left_aligned { "---|" } else { "---:|" };
        write!(f, "| {} |\n|---|{}", head.join(" | "), others.repeat(head.len() - 1))?;
        rows.iter().try_for_each(|row| write!(f, "\n| {} |", row.join(" | ")))
    }
}

/// With decimals where they matter, and separators between thousands.
pub(crate) fn number(value: f64) -> String {
    if value.abs() < 10.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = if value < 0.0 { "−".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Table, number};

    #[test]
    fn thousands_are_separated_and_small_numbers_have_decimals() {
        assert_eq!(
            [0.0, 9.994, 10.2, 999.6, 1_234_567.0].map(number),
            ["0.00", "9.99", "10", "1,000", "1,234,567"]
        );
    }

    #[test]
    fn a_table_has_a_line_under_its_head() {
        let mut table = Table::new(&["server", "calls"]);
        table.row(["epoll".to_owned(), "3".to_owned()]);
        assert_eq!(table.to_string(), "| server | calls |\n|---|---:|\n| epoll | 3 |");
    }
}
