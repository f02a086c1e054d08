//! What a run must remember to go on after a crash: versioned, checksummed, stored beside the data.
//!
//! Owns the record and its encoding. Where it is stored is the dialect's business.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::key::{Frontier, Round};
use crate::proof::{Proof, Verdict};
use crate::times::Times;
use crate::way::Way;

/// The version this program writes. A reader refuses versions that it does not know.
const VERSION: u32 = 1;

/// The phases of a run, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Shadow, change log and capture triggers are being made.
    Prepare,
    /// Rows are being copied. By key ranges the log is applied between rounds; by blocks it is kept.
    Copy,
    /// Rows whose keys are in the log are being deleted from the shadow (only where the copy goes by
    /// blocks). What remains was touched by nobody and is part of one consistent state.
    Settle,
    /// Indexes that were left out of the copy are being built; after a copy by blocks, all of them.
    Indexes,
    /// The log is brought near empty.
    CatchUp,
    /// Source and shadow are compared.
    Verify,
    /// The swap is tried.
    Swap,
    /// The swap is made and the way back is kept: what the swap left for later is being done.
    Arrive,
    /// The swap is made and can be taken back; nothing is being done.
    Revertible,
    /// The shadow stands in the source's place; our objects are being removed.
    Finish,
    /// The run has ended well.
    Done,
}

impl Phase {
    /// The phase as users read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Copy => "copy",
            Self::Settle => "settle",
            Self::Indexes => "indexes",
            Self::CatchUp => "catch-up",
            Self::Verify => "verify",
            Self::Swap => "swap",
            Self::Arrive => "arrive",
            Self::Revertible => "revertible",
            Self::Finish => "finish",
            Self::Done => "done",
        }
    }
}

/// What a run has counted so far. Statistics only: nothing is decided by them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Rows copied by chunks that have committed.
    pub rows_copied: u64,
    /// Chunks that have committed.
    pub chunks: u64,
    /// Log entries consumed, including those dropped beyond the frontier.
    pub entries_consumed: u64,
    /// Distinct keys whose rows were made equal.
    pub keys_applied: u64,
    /// Log entries dropped because their rows were still to be copied.
    pub entries_dropped: u64,
    /// Chunks that met a pending unique value and were taken together with the log.
    pub chunks_redone: u64,
    /// Rows that `Settle` removed from the shadow, to be written by application.
    #[serde(default)]
    pub rows_settled: u64,
    /// Rows of the source found equal by verification.
    pub rows_verified: u64,
    /// Keys that verification had logged again to repair them.
    pub keys_repaired: u64,
    /// Swaps tried.
    pub swap_attempts: u64,
    /// Milliseconds of waiting by the kind of reason ([`crate::throttle::Pause`]).
    #[serde(default)]
    pub paused_ms: BTreeMap<String, u64>,
    /// How long chunks took.
    #[serde(default)]
    pub chunk_times: Times,
    /// Worst lag of a replica that was read, in milliseconds; `None` where none was.
    #[serde(default)]
    pub lag_ms_worst: Option<u64>,
}

/// The durable state of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Where the run is.
    pub phase: Phase,
    /// What was copied before `round`.
    pub frontier: Frontier,
    /// The round whose chunks may be under way or done; which, the done marks of the chunks tell.
    pub round: Option<Round>,
    /// The number of the next round. Never used twice, so that done marks cannot be mistaken.
    pub round_next: u64,
    /// How far verification has come.
    pub verified: Frontier,
    /// Part of what `verified` has passed was not compared: a sample passes over ranges.
    #[serde(default)]
    pub sampled: bool,
    /// What was proven when the last swap was made; `None` before the first, and in older records.
    #[serde(default)]
    pub proven: Option<Proof>,
    /// An abort has begun: parts of the run may be gone, so the only way is on with the abort.
    #[serde(default)]
    pub aborting: bool,
    /// Why it was begun, where nobody asked for it.
    #[serde(default)]
    pub abort_why: Option<String>,
    /// Which way the run goes, or went last.
    #[serde(default)]
    pub way: Way,
    /// The way of the last swap that was made: which table stands under the source's name. `None` before
    /// the first swap.
    #[serde(default)]
    pub stands: Option<Way>,
    /// Orders that were given before the last turn: they were for the way before it.
    #[serde(default)]
    pub orders_before: usize,
    /// Counters, exact up to the begin of `round`.
    pub counters: Counters,
}

impl Checkpoint {
    /// The checkpoint of a run that has not begun.
    pub fn begin() -> Self {
        Self {
            phase: Phase::Prepare,
            frontier: Frontier::Start,
            round: None,
            round_next: 1,
            verified: Frontier::Start,
            sampled: false,
            proven: None,
            aborting: false,
            abort_why: None,
            way: Way::Forward,
            stands: None,
            orders_before: 0,
            counters: Counters::default(),
        }
    }

    /// What the comparison has proven: at the last swap where one was made, else just now. `None` before a
    /// swap while it is not done.
    pub fn proof(&self) -> Option<Proof> {
        let swapped = self.stands.is_some() || self.phase >= Phase::Arrive;
        match (&self.proven, &self.verified) {
            (Some(proven), _) if swapped => Some(*proven),
            (_, verified) if swapped || *verified == Frontier::End => Some(self.proof_as_it_is()),
            _ => None,
        }
    }

    /// What a swap made just now would stand on.
    pub(crate) fn proof_as_it_is(&self) -> Proof {
        proof(&self.verified, self.sampled, self.counters.rows_verified)
    }

    /// The record as text: `underpin-checkpoint VERSION CRC32 JSON`.
    ///
    /// # Errors
    /// Where the record cannot be written as JSON, which would be a fault of this program.
    pub fn encode(&self) -> Result<String, CheckpointError> {
        let json = serde_json::to_string(self)
            .map_err(|error| CheckpointError::Damaged(error.to_string()))?;
        Ok(format!("underpin-checkpoint {VERSION} {:08x} {json}", crc32fast::hash(json.as_bytes())))
    }

    /// Reads a record written by [`Self::encode`].
    ///
    /// # Errors
    /// A damaged record, or one of a version that this program does not know.
    pub fn decode(text: &str) -> Result<Self, CheckpointError> {
        let damaged = |what: &str| CheckpointError::Damaged(what.to_owned());
        let mut parts = text.splitn(4, ' ');
        if parts.next() != Some("underpin-checkpoint") {
            return Err(damaged("it does not begin like one"));
        }
        let version: u32 = parts
            .next()
            .and_then(|part| part.parse().ok())
            .ok_or_else(|| damaged("it has no version"))?;
        if version != VERSION {
            return Err(CheckpointError::Version { found: version, known: VERSION });
        }
        let crc = parts
            .next()
            .and_then(|part| u32::from_str_radix(part, 16).ok())
            .ok_or_else(|| damaged("it has no checksum"))?;
        let json = parts.next().ok_or_else(|| damaged("it has no content"))?;
        if crc32fast::hash(json.as_bytes()) != crc {
            return Err(damaged("its checksum does not fit its content"));
        }
        serde_json::from_str(json).map_err(|error| CheckpointError::Damaged(error.to_string()))
    }
}

/// What a swap would stand on.
pub(crate) fn proof(verified: &Frontier, sampled: bool, rows: u64) -> Proof {
    let verdict = match (verified, sampled) {
        (Frontier::End, false) => Verdict::Equal,
        (Frontier::End, true) => Verdict::Sampled,
        (Frontier::Start | Frontier::At(_), _) => Verdict::Skipped,
    };
    Proof { verdict, rows }
}

/// Why a checkpoint cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// It was changed or cut since it was written.
    #[error("the checkpoint of this run is damaged: {0}; abort the run and start it again")]
    Damaged(String),
    /// Another version of the program wrote it.
    #[error(
        "the checkpoint of this run has version {found}, this program knows {known}: go on with \
         the program that began the run, or abort the run and start it again"
    )]
    Version {
        /// The version in the record.
        found: u32,
        /// The version that this program writes.
        known: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Chunk, Key, KeyRange};

    fn sample() -> Checkpoint {
        Checkpoint {
            frontier: Frontier::At(Key(vec!["1".into(), "_utf8mb4 X'27'".into()])),
            round: Some(Round {
                number: 4,
                chunks: vec![Chunk { index: 0, range: KeyRange { after: None, up_to: None } }],
            }),
            ..Checkpoint::begin()
        }
    }

    #[test]
    fn reads_what_it_wrote() {
        let text = sample().encode().unwrap();
        assert_eq!(Checkpoint::decode(&text), Ok(sample()));
    }

    #[test]
    fn an_older_record_tells_what_it_proved() {
        let mut done = Checkpoint { phase: Phase::Finish, ..sample() };
        done.verified = Frontier::End;
        done.counters.rows_verified = 7;
        let json = serde_json::to_value(&done).unwrap();
        let mut older = json.as_object().unwrap().clone();
        for field in ["sampled", "proven", "way", "stands"] {
            assert!(older.remove(field).is_some(), "{field}");
        }
        let json = serde_json::Value::Object(older).to_string();
        let crc = crc32fast::hash(json.as_bytes());
        let read = Checkpoint::decode(&format!("underpin-checkpoint 1 {crc:08x} {json}")).unwrap();
        assert_eq!(read.proof(), Some(Proof { verdict: Verdict::Equal, rows: 7 }));
    }

    #[test]
    fn what_was_proven_at_the_swap_stays_when_a_turn_is_begun_and_left() {
        let proven = Some(Proof { verdict: Verdict::Sampled, rows: 100 });
        let made = Checkpoint {
            phase: Phase::Revertible,
            stands: Some(Way::Forward),
            verified: Frontier::End,
            sampled: true,
            proven,
            ..sample()
        };
        let mut going = made.turned(crate::turn::Turn::Revert).unwrap();
        assert!(!going.sampled && going.verified == Frontier::Start);
        assert_eq!(going.counters.rows_verified, 0);
        going.phase = Phase::Verify;
        going.verified = Frontier::End;
        assert_eq!(going.proof(), proven, "until the swap back");
        assert_eq!(going.at_rest().proof(), proven);
        let copying = Checkpoint { phase: Phase::Verify, sampled: true, ..sample() };
        assert_eq!(copying.proof(), None);
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let text = sample().encode().unwrap().replace("X'27'", "X'28'");
        assert!(matches!(Checkpoint::decode(&text), Err(CheckpointError::Damaged(_))));
    }

    #[test]
    fn another_version_is_named() {
        let text = sample().encode().unwrap().replacen(" 1 ", " 2 ", 1);
        assert_eq!(Checkpoint::decode(&text), Err(CheckpointError::Version { found: 2, known: 1 }));
    }

    #[test]
    fn nonsense_is_damaged() {
        for text in
            ["", "x", "underpin-checkpoint", "underpin-checkpoint 1", "underpin-checkpoint 1 0"]
        {
            assert!(matches!(Checkpoint::decode(text), Err(CheckpointError::Damaged(_))), "{text}");
        }
    }
}
