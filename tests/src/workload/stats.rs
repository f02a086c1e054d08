//! What was measured: samples, percentiles, errors by code.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// One acknowledged transaction. Times are counted from the start of the load.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When the schedule wanted it to begin.
    pub intended: Duration,
    /// When it began.
    pub started: Duration,
    /// When the server acknowledged it.
    pub ended: Duration,
}

/// Percentiles over a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Transactions acknowledged.
    pub transactions: usize,
    /// From the intended time, median.
    pub p50: Duration,
    /// From the intended time, 95 of 100 took no longer.
    pub p95: Duration,
    /// From the intended time, 99 of 100 took no longer.
    pub p99: Duration,
    /// 99 of 100 transactions alone, without the wait for their turn, took no longer.
    pub service_p99: Duration,
    /// The longest single transaction, without the wait for its turn.
    pub longest: Duration,
    /// When the longest began.
    pub longest_at: Duration,
}

impl Summary {
    /// Sums up the samples whose transaction overlaps the span; nothing in it gives zeros.
    #[must_use]
    pub fn between(samples: &[Sample], from: Duration, to: Duration) -> Self {
        let inside: Vec<&Sample> =
            samples.iter().filter(|sample| sample.ended >= from && sample.started <= to).collect();
        let sorted = |length: fn(&Sample) -> Duration| {
            let mut lengths: Vec<Duration> = inside.iter().map(|sample| length(sample)).collect();
            lengths.sort_unstable();
            lengths
        };
        let waited = sorted(|sample| sample.ended.saturating_sub(sample.intended));
        let served = sorted(|sample| sample.ended.saturating_sub(sample.started));
        let longest =
            inside.iter().max_by_key(|sample| sample.ended.saturating_sub(sample.started));
        Self {
            transactions: inside.len(),
            p50: percentile(&waited, 50),
            p95: percentile(&waited, 95),
            p99: percentile(&waited, 99),
            service_p99: percentile(&served, 99),
            longest: served.last().copied().unwrap_or_default(),
            longest_at: longest.map(|sample| sample.started).unwrap_or_default(),
        }
    }
}

/// The smallest value that at least `percent` of the sorted values do not pass.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Errors by kind: the server's code with its words (the first met), or a kind of our own.
#[derive(Clone, Debug, Default)]
pub struct Errors(BTreeMap<String, (u64, String)>);

impl Errors {
    /// Counts one.
    pub fn count(&mut self, kind: String, words: &str) {
        let entry = self.0.entry(kind).or_insert_with(|| (0, words.to_owned()));
        entry.0 += 1;
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        for (kind, (count, words)) in &other.0 {
            let entry = self.0.entry(kind.clone()).or_insert_with(|| (0, words.clone()));
            entry.0 += count;
        }
    }

    /// How many there were.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().map(|(count, _)| count).sum()
    }

    /// How many there were of one kind, for example `1213`.
    #[must_use]
    pub fn of(&self, kind: &str) -> u64 {
        self.0.get(kind).map_or(0, |(count, _)| *count)
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return out.write_str("none");
        }
        for (number, (kind, (count, words))) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(out, "{comma}{count} × {kind} ({words})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Sample, Summary};
    use std::time::Duration;

    #[test]
    fn a_wait_behind_a_stall_counts_from_the_intended_time() {
        let ms = Duration::from_millis;
        let mut samples: Vec<Sample> =
            (0..99).map(|n| Sample { intended: ms(n), started: ms(n), ended: ms(n + 2) }).collect();
        samples.push(Sample { intended: ms(10), started: ms(490), ended: ms(500) });
        let all = Summary::between(&samples, ms(0), ms(1000));
        assert_eq!((all.transactions, all.p50, all.p99), (100, ms(2), ms(2)));
        assert_eq!((all.longest, all.longest_at), (ms(10), ms(490)));
        let end = Summary::between(&samples, ms(400), ms(1000));
        assert_eq!((end.transactions, end.p99), (1, ms(490)));
        assert_eq!(Summary::between(&samples, ms(2000), ms(3000)), Summary::default());
    }
}
