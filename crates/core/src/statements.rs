//! The server's own statistics of the statements that touch a table: what they were before a run and
//! are after its swap, and which statements fared worse.
//!
//! Owns the comparison. Taking the samples is the dialect's; when they are taken, and what is told of
//! them, the engine's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Fewer calls than this, before or after, say nothing about a statement.
const CALLS_MIN: u64 = 5;

/// A statement counts as slower from this multiple of its mean time on …
const SLOWER_TIMES: f64 = 2.0;

/// … and from this many milliseconds more a call, below which clocks and caches are what is measured.
const SLOWER_MS: f64 = 0.5;

/// Rows examined a call: from this multiple on …
const EXAMINED_TIMES: f64 = 3.0;

/// … and from so many rows more.
const EXAMINED_MORE: f64 = 10.0;

/// Shares of the calls that used no index: seldom before, often after.
const WITHOUT_INDEX_SELDOM: f64 = 0.1;
const WITHOUT_INDEX_OFTEN: f64 = 0.5;

/// Statements that are named in a comparison at most; the worst come first.
const NAMED_MAX: usize = 20;

/// Counters of one kind of statement, since the server began to count.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StatementStats {
    /// The server's fingerprint of the statement.
    pub digest: String,
    /// The statement, its values replaced by placeholders.
    pub text: String,
    /// How often it ran.
    pub calls: u64,
    /// Milliseconds in all.
    pub total_ms: f64,
    /// Rows it read (MySQL, MariaDB) or blocks it touched (PostgreSQL), in all.
    pub examined: u64,
    /// Rows it returned or changed, in all.
    pub rows: u64,
    /// Times it used no index, in all; zero where the server does not tell.
    pub without_index: u64,
}

impl StatementStats {
    fn add(&mut self, other: &Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.total_ms += other.total_ms;
        self.examined = self.examined.saturating_add(other.examined);
        self.rows = self.rows.saturating_add(other.rows);
        self.without_index = self.without_index.saturating_add(other.without_index);
    }

    /// What came to these counters since an earlier look. Counters that went backwards were set to zero
    /// in between: then all of them are new.
    fn since(&self, earlier: Option<&Self>) -> Self {
        let Some(earlier) = earlier.filter(|earlier| earlier.calls <= self.calls) else {
            return self.clone();
        };
        Self {
            digest: self.digest.clone(),
            text: self.text.clone(),
            calls: self.calls - earlier.calls,
            total_ms: f64::max(self.total_ms - earlier.total_ms, 0.0),
            examined: self.examined.saturating_sub(earlier.examined),
            rows: self.rows.saturating_sub(earlier.rows),
            without_index: self.without_index.saturating_sub(earlier.without_index),
        }
    }

    fn each(&self) -> EachCall {
        // A count of calls far beyond what an `f64` holds exactly does not occur; the mean is rounded.
        #[allow(clippy::cast_precision_loss)]
        let (calls, examined, without_index) =
            (std::cmp::max(self.calls, 1) as f64, self.examined as f64, self.without_index as f64);
        EachCall {
            calls: self.calls,
            ms: self.total_ms / calls,
            examined: examined / calls,
            without_index: without_index / calls,
        }
    }
}

/// What one call of a statement took on average.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EachCall {
    /// How many calls the average is of.
    pub calls: u64,
    /// Milliseconds.
    pub ms: f64,
    /// Rows read (MySQL, MariaDB) or blocks touched (PostgreSQL).
    pub examined: f64,
    /// Share of the calls that used no index, from 0 to 1.
    pub without_index: f64,
}

/// In what a statement fared worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Worse {
    /// A call takes longer.
    Slower,
    /// A call examines more.
    ExaminesMore,
    /// It used an index and uses none now: its plan has changed.
    LostIndex,
}

/// A statement that fares worse after the swap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worsened {
    /// The statement, its values replaced by placeholders.
    pub text: String,
    /// In what.
    pub worse: Vec<Worse>,
    /// Before the run.
    pub before: EachCall,
    /// After the swap.
    pub after: EachCall,
}

/// What came of comparing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Kinds of statement that ran often enough before and after to be compared.
    pub compared: u64,
    /// Kinds of statement that ran after the swap, compared or not.
    pub seen: u64,
    /// Those that fare worse, the costliest loss first; at most 20.
    pub worsened: Vec<Worsened>,
}

/// Compares the time before the run with the time between swap and `after`.
///
/// `before`: counters since the server began to count, read before the run. `at_swap` and `after`: read
/// right after the swap and some time later; only what came between them counts as after. A statement is
/// recognised by its digest, and by its text where the server makes digests of the table's identity,
/// which the swap changes.
pub fn compare(
    before: &[StatementStats],
    at_swap: &[StatementStats],
    after: &[StatementStats],
) -> Comparison {
    let (before_digests, at_swap) = (by_digest(before), by_digest(at_swap));
    let before_texts = by_text(before);
    let mut comparison = Comparison::default();
    // By text, because after the swap the old and the new digest of a statement may both be counted.
    let mut now: BTreeMap<String, (StatementStats, Option<StatementStats>)> = BTreeMap::new();
    for (digest, stats) in by_digest(after) {
        let since = stats.since(at_swap.get(&digest));
        if since.calls == 0 {
            continue;
        }
        let text = levelled(&since.text);
        let known = before_digests.get(&digest).or_else(|| before_texts.get(&text)).cloned();
        match now.get_mut(&text) {
            Some((sum, _)) => sum.add(&since),
            None => {
                now.insert(text, (since, known));
            }
        }
    }
    for (since, known) in now.into_values() {
        comparison.seen += 1;
        let Some(known) = known.filter(|known| known.calls >= CALLS_MIN) else { continue };
        if since.calls < CALLS_MIN {
            continue;
        }
        comparison.compared += 1;
        let (before, after) = (known.each(), since.each());
        let worse = worse(&before, &after);
        if !worse.is_empty() {
            comparison.worsened.push(Worsened { text: since.text, worse, before, after });
        }
    }
    comparison.worsened.sort_by(|a, b| loss_ms(b).total_cmp(&loss_ms(a)));
    comparison.worsened.truncate(NAMED_MAX);
    comparison
}

fn worse(before: &EachCall, after: &EachCall) -> Vec<Worse> {
    let mut worse = Vec::new();
    if after.ms >= before.ms * SLOWER_TIMES && after.ms - before.ms >= SLOWER_MS {
        worse.push(Worse::Slower);
    }
    let more = after.examined - before.examined;
    if after.examined >= before.examined * EXAMINED_TIMES && more >= EXAMINED_MORE {
        worse.push(Worse::ExaminesMore);
    }
    if before.without_index < WITHOUT_INDEX_SELDOM && after.without_index > WITHOUT_INDEX_OFTEN {
        worse.push(Worse::LostIndex);
    }
    worse
}

/// What the worsening cost in all since the swap.
fn loss_ms(worsened: &Worsened) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let calls = worsened.after.calls as f64;
    (worsened.after.ms - worsened.before.ms) * calls
}

/// Sums by digest: a server may keep a row for each user or database.
fn by_digest(stats: &[StatementStats]) -> BTreeMap<String, StatementStats> {
    sums(stats, |stats| stats.digest.clone())
}

fn by_text(stats: &[StatementStats]) -> BTreeMap<String, StatementStats> {
    sums(stats, |stats| levelled(&stats.text))
}

fn sums(
    stats: &[StatementStats],
    key: impl Fn(&StatementStats) -> String,
) -> BTreeMap<String, StatementStats> {
    let mut sums: BTreeMap<String, StatementStats> = BTreeMap::new();
    for stats in stats {
        match sums.get_mut(&key(stats)) {
            Some(sum) => sum.add(stats),
            None => {
                sums.insert(key(stats), stats.clone());
            }
        }
    }
    sums
}

/// The text with its spacing levelled.
fn levelled(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(digest: &str, calls: u64, total_ms: f64, examined: u64) -> StatementStats {
        StatementStats {
            digest: digest.into(),
            text: format!("SELECT {digest}"),
            calls,
            total_ms,
            examined,
            ..StatementStats::default()
        }
    }

    #[test]
    fn a_statement_that_became_slower_is_named_with_both_figures() {
        let before = [stats("a", 1000, 1000.0, 1000), stats("b", 1000, 500.0, 1000)];
        // While the run went on both were called; only what came after the swap counts.
        let at_swap = [stats("a", 5000, 9000.0, 5000), stats("b", 5000, 2500.0, 5000)];
        let after = [stats("a", 5010, 9050.0, 5010), stats("b", 5100, 2550.0, 5100)];
        let comparison = compare(&before, &at_swap, &after);
        assert_eq!((comparison.compared, comparison.seen), (2, 2));
        let [worsened] = &comparison.worsened[..] else { panic!("{comparison:?}") };
        assert_eq!(
            (worsened.text.as_str(), &worsened.worse[..]),
            ("SELECT a", &[Worse::Slower][..])
        );
        assert_eq!((worsened.before.ms, worsened.after.ms, worsened.after.calls), (1.0, 5.0, 10));
    }

    #[test]
    fn more_rows_and_a_lost_index_are_told_apart() {
        let before = [stats("a", 100, 100.0, 100)];
        let after = [StatementStats { without_index: 100, ..stats("a", 200, 200.0, 10_100) }];
        let comparison = compare(&before, &before, &after);
        assert_eq!(comparison.worsened[0].worse, [Worse::ExaminesMore, Worse::LostIndex]);
    }

    #[test]
    fn trifles_are_not_told() {
        let before = [stats("a", 100, 1.0, 100), stats("b", 100, 100.0, 100)];
        // Four times 0.01 ms; three rows instead of one; too few calls to tell.
        let after = [stats("a", 200, 5.0, 400), stats("b", 104, 900.0, 104)];
        assert!(compare(&before, &before, &after).worsened.is_empty());
    }

    #[test]
    fn a_digest_that_the_swap_changed_is_found_by_its_text() {
        let before = [stats("a", 100, 100.0, 100)];
        let text = "SELECT\n  a".to_owned();
        let after = [StatementStats { text, ..stats("other", 50, 500.0, 50) }];
        let comparison = compare(&before, &before, &after);
        assert_eq!((comparison.compared, comparison.worsened.len()), (1, 1));
    }

    #[test]
    fn rows_of_several_users_are_one_statement() {
        let before = [stats("a", 3, 3.0, 3), stats("a", 3, 3.0, 3)];
        let after = [stats("a", 6, 30.0, 6), stats("a", 6, 30.0, 6)];
        let comparison = compare(&before, &before, &after);
        assert_eq!(comparison.worsened[0].before.calls, 6);
        assert_eq!(comparison.worsened[0].after.calls, 6);
    }

    #[test]
    fn counters_that_were_reset_count_from_zero() {
        let before = [stats("a", 100, 100.0, 100)];
        let after = [stats("a", 10, 100.0, 10)];
        assert_eq!(compare(&before, &before, &after).worsened[0].after.calls, 10);
        // What did not run since is nothing to compare.
        assert_eq!(compare(&before, &before, &before), Comparison::default());
    }

    #[test]
    fn the_costliest_come_first_and_the_list_is_bounded() {
        let many = |calls: u64, ms: f64| -> Vec<StatementStats> {
            (0..50_u32)
                .map(|i| stats(&format!("{i:02}"), calls, ms * f64::from(i + 1), calls))
                .collect()
        };
        let comparison = compare(&many(10, 10.0), &[], &many(10, 100.0));
        assert_eq!(comparison.compared, 50);
        assert_eq!(comparison.worsened.len(), NAMED_MAX);
        assert_eq!(comparison.worsened[0].text, "SELECT 49");
    }
}
