//! One answer of a server: its numbers, as Prometheus' text has them, and what lies between two of them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The numbers of one moment.
pub struct Sample {
    taken: Instant,
    /// By name, with the labels as they stand.
    values: HashMap<String, f64>,
}

impl Sample {
    /// Read the text; `Err` names the line that is none.
    pub fn read(text: &str) -> Result<Sample, String> {
        let mut values = HashMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let read = line.rsplit_once(' ').and_then(|(name, value)| Some((name, value.parse().ok()?)));
            let (name, value): (&str, f64) =
                read.ok_or_else(|| format!("this is no metric: {:?}", line.escape_debug().to_string()))?;
            values.insert(name.to_owned(), value);
        }
        match values.is_empty() {
            true => Err("there are no metrics in the answer".to_owned()),
            false => Ok(Sample { taken: Instant::now(), values }),
        }
    }

    pub fn get(&self, name: &str) -> f64 {
        self.values.get(name).copied().unwrap_or(0.0)
    }

    /// All values of one name, each with the value of its label `label`, the largest first.
    pub fn by_label<'a>(&'a self, name: &str, label: &str) -> Vec<(&'a str, f64)> {
        let label = format!("{label}=\"");
        let of_name = self.values.iter().filter_map(|(key, value)| {
            let labels = key.strip_prefix(name)?.strip_prefix('{')?;
            let (_, rest) = labels.split_once(&label)?;
            Some((rest.split_once('"')?.0, *value))
        });
        let mut found: Vec<_> = of_name.collect();
        found.sort_by(|(a, x), (b, y)| y.total_cmp(x).then(a.cmp(b)));
        found
    }

    /// How much a counter has grown in a second since `before`.
    pub fn rate(&self, before: &Sample, name: &str) -> f64 {
        let seconds = self.taken.duration_since(before.taken).as_secs_f64();
        match seconds > 0.0 {
            true => (self.get(name) - before.get(name)).max(0.0) / seconds,
            false => 0.0,
        }
    }

    /// The time that `q` of what was recorded since `before` did not exceed, as its histogram has it; `None` if
    /// nothing was recorded.
    pub fn quantile(&self, before: Option<&Sample>, name: &str, q: f64) -> Option<Duration> {
        let bucket = format!("{name}_bucket");
        let since = |le: &str, count: f64| {
            let key = format!("{bucket}{{le=\"{le}\"}}");
            count - before.map_or(0.0, |before| before.get(&key))
        };
        let mut buckets: Vec<(f64, f64)> = (self.by_label(&bucket, "le").into_iter())
            .map(|(le, count)| (le.parse().unwrap_or(f64::INFINITY), since(le, count)))
            .collect();
        buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let total = buckets.last().map_or(0.0, |(_, count)| *count);
        if total <= 0.0 {
            return None;
        }
        let (bound, _) = buckets.iter().find(|(_, count)| *count >= total * q)?;
        Duration::try_from_secs_f64(*bound).ok().or(Some(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP turns_total Turns.
# TYPE turns_total counter
turns_total 12
closes_total{reason=\"closed\"} 3
closes_total{reason=\"end of stream\"} 5
lag_seconds_bucket{le=\"0.001\"} 90
lag_seconds_bucket{le=\"0.01\"} 99
lag_seconds_bucket{le=\"+Inf\"} 100
";

    #[test]
    fn values_labels_and_quantiles_are_read() {
        let sample = Sample::read(TEXT).unwrap();
        assert_eq!(sample.get("turns_total"), 12.0);
        assert_eq!(sample.by_label("closes_total", "reason"), [("end of stream", 5.0), ("closed", 3.0)]);
        assert_eq!(sample.quantile(None, "lag_seconds", 0.5), Some(Duration::from_millis(1)));
        assert_eq!(sample.quantile(None, "lag_seconds", 0.99), Some(Duration::from_millis(10)));
        assert_eq!(sample.quantile(None, "lag_seconds", 1.0), Some(Duration::MAX));
        assert_eq!(sample.quantile(None, "turn_seconds", 0.5), None);
    }

    #[test]
    fn a_quantile_is_of_what_came_since() {
        let before = Sample::read(TEXT).unwrap();
        let after = Sample::read(
            "lag_seconds_bucket{le=\"0.001\"} 90\nlag_seconds_bucket{le=\"0.01\"} 109\nlag_seconds_bucket{le=\"+Inf\"} 110\n",
        );
        let after = after.unwrap();
        assert_eq!(after.quantile(Some(&before), "lag_seconds", 0.5), Some(Duration::from_millis(10)));
    }

    #[test]
    fn what_is_no_metric_is_named() {
        assert!(Sample::read("<html>\n").is_err_and(|why| why.contains("<html>")));
        assert!(Sample::read("# nothing\n").is_err());
    }
}
