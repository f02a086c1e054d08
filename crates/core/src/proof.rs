//! What of source and shadow is compared before the swap, and what that proves.
//!
//! Owns which ranges a sample takes, and the verdict. Only what was compared counts, never what was asked
//! for: a run that is resumed with other options is told by what was done.

use serde::{Deserialize, Serialize};

use crate::key::KeyRange;

/// Of so many ranges a sample takes about one.
const SAMPLE_ONE_IN: u64 = 10;

/// Ranges that a sample takes in any case, if there are as many.
pub(crate) const SAMPLE_RANGES_MIN: u64 = 3;

/// What is compared before the swap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Verification {
    /// Every row.
    #[default]
    Full,
    /// About one range in ten, the first and the last among them.
    Sample,
    /// Nothing.
    Off,
}

/// What a comparison has proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every row was compared and found equal.
    Equal,
    /// Some rows were compared and found equal; of the others nothing is known.
    Sampled,
    /// The comparison was switched off, or not brought to its end.
    Skipped,
}

/// A verdict and the rows it stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The verdict.
    pub verdict: Verdict,
    /// Rows of the source that were compared and found equal.
    pub rows: u64,
}

/// Whether a sample with this seed takes the range. It is told by the range alone, so that a program that
/// goes on after a crash takes the same ones, without remembering any.
pub(crate) fn is_in_sample(seed: u64, range: &KeyRange) -> bool {
    match (&range.after, &range.up_to) {
        (Some(after), Some(_)) => {
            let text = after.0.join("\u{0}");
            seed_of(&format!("{seed}\u{0}{text}")).is_multiple_of(SAMPLE_ONE_IN)
        }
        // The first and the last.
        _ => true,
    }
}

/// A number that is the same for the same text, and spread for those that differ a little (FNV-1a and the
/// last mixing of `SplitMix64`).
pub fn seed_of(text: &str) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    fn range(after: Option<u64>, up_to: Option<u64>) -> KeyRange {
        let key = |n: u64| Key(vec![n.to_string()]);
        KeyRange { after: after.map(key), up_to: up_to.map(key) }
    }

    #[test]
    fn about_one_in_ten_and_always_the_first_and_the_last() {
        for seed in [0, 1, seed_of("01J5F0")] {
            let taken = (1..1001)
                .filter(|n| is_in_sample(seed, &range(Some(n * 500), Some(n * 500 + 500))));
            let taken: Vec<u64> = taken.collect();
            assert!((70..140).contains(&taken.len()), "{} of 1000", taken.len());
            // Spread over the table, not in one heap.
            let gaps = taken.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(gaps.max() < Some(100), "{taken:?}");
            assert!(is_in_sample(seed, &range(None, Some(9))));
            assert!(is_in_sample(seed, &range(Some(9), None)));
        }
    }

    #[test]
    fn another_run_takes_another_sample() {
        let of = |seed: &str| -> Vec<u64> {
            let seed = seed_of(seed);
            (1..500).filter(|n| is_in_sample(seed, &range(Some(*n), Some(n + 1)))).collect()
        };
        assert_ne!(of("r1"), of("r2"));
        assert_eq!(of("r1"), of("r1"));
    }
}
