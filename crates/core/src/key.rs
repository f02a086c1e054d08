//! Keys and ranges of keys as opaque values: a dialect writes them, only the server compares them.
//!
//! Nothing here orders keys. Collations, trailing spaces, binary and decimal keys sort as the server
//! sorts them; a comparison in this program would sooner or later disagree and lose a row.

use serde::{Deserialize, Serialize};

/// One key: a literal per key column, in the spelling that the dialect sends back to the server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key(pub Vec<String>);

/// A half-open stretch of keys: everything greater than `after` and not greater than `up_to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRange {
    /// Exclusive lower bound; `None` begins at the first key.
    pub after: Option<Key>,
    /// Inclusive upper bound; `None` ends after the last key.
    pub up_to: Option<Key>,
}

/// How far the copy has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frontier {
    /// Nothing has been copied.
    Start,
    /// Every key up to and including this one has been copied.
    At(Key),
    /// Every key has been copied.
    End,
}

impl Frontier {
    /// The frontier after a chunk that ended at `up_to`.
    pub fn after(up_to: Option<&Key>) -> Self {
        up_to.map_or(Self::End, |key| Self::At(key.clone()))
    }

    /// The exclusive lower bound of what is still to do; `None` for the whole table.
    ///
    /// Not to be asked at `End`, where nothing is left.
    pub fn lower_bound(&self) -> Option<&Key> {
        match self {
            Self::At(key) => Some(key),
            Self::Start | Self::End => None,
        }
    }
}

/// One unit of copying or verifying.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Position in its round, from 0.
    pub index: u32,
    /// The keys it covers.
    pub range: KeyRange,
}

/// Chunks that run side by side; it ends when the last one has committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// Number of the round, growing through the whole run; never used twice.
    pub number: u64,
    /// The chunks in key order; each begins where the one before it ends.
    pub chunks: Vec<Chunk>,
}

impl Round {
    /// The frontier once every chunk of this round has committed.
    pub fn end(&self) -> Frontier {
        Frontier::after(self.chunks.last().and_then(|chunk| chunk.range.up_to.as_ref()))
    }
}
