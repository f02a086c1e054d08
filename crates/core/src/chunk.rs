//! Chunk sizing by feedback: how many rows the next chunk takes so that it lasts the target time.
//!
//! Owns no clock; the caller tells how long each chunk took.

/// The greatest growth from one round to the next. A first, cached chunk must not tempt us into a
/// giant one.
const GROWTH_MAX: u64 = 3;

/// Picks the number of rows of the next chunk from how the last ones went.
#[derive(Debug, Clone)]
pub struct ChunkSizer {
    rows: u64,
    rows_min: u64,
    rows_max: u64,
    target_ms: u64,
    /// Worst size proposed by the chunks seen since the last `rows()` call.
    proposal: Option<u64>,
    /// Whether the last size was held down by the cap on growth, or is a first guess.
    is_growing: bool,
}

impl ChunkSizer {
    /// A sizer that starts at `rows_start` and stays within `rows_min..=rows_max`.
    pub fn new(rows_start: u64, rows_min: u64, rows_max: u64, target_ms: u64) -> Self {
        let rows_max = std::cmp::max(rows_max, rows_min);
        let rows = rows_start.clamp(rows_min, rows_max);
        Self {
            rows,
            rows_min,
            rows_max,
            target_ms: std::cmp::max(target_ms, 1),
            proposal: None,
            is_growing: true,
        }
    }

    /// Changes how long a chunk should take.
    pub fn set_target_ms(&mut self, target_ms: u64) {
        self.target_ms = std::cmp::max(target_ms, 1);
    }

    /// Tells that a chunk of `rows` rows took `took_ms`. Chunks without rows teach nothing.
    pub fn feedback(&mut self, rows: u64, took_ms: u64) {
        if rows == 0 {
            return;
        }
        let fitting = rows.saturating_mul(self.target_ms) / std::cmp::max(took_ms, 1);
        let proposal = self.proposal.map_or(fitting, |worst| std::cmp::min(worst, fitting));
        self.proposal = Some(proposal);
    }

    /// How many chunks a worker should take before the size is looked at again: one while it still grows
    /// threefold each time, `most` afterwards.
    pub fn chunks_per_worker(&self, most: u32) -> u32 {
        if self.is_growing { 1 } else { most }
    }

    /// Rows for the next chunk: at most thrice the last size, at once down to what fits the target.
    pub fn rows(&mut self) -> u64 {
        if let Some(fitting) = self.proposal.take() {
            let grown = std::cmp::min(fitting, self.rows.saturating_mul(GROWTH_MAX));
            self.rows = grown.clamp(self.rows_min, self.rows_max);
            self.is_growing = fitting > self.rows && self.rows < self.rows_max;
        }
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_towards_the_target_in_steps() {
        let mut sizer = ChunkSizer::new(1000, 100, 100_000, 500);
        assert_eq!(sizer.rows(), 1000);
        sizer.feedback(1000, 10);
        assert_eq!(sizer.rows(), 3000, "growth is capped at threefold");
        sizer.feedback(3000, 500);
        assert_eq!(sizer.rows(), 3000, "on target: no change");
    }

    #[test]
    fn the_slowest_chunk_of_a_round_decides() {
        let mut sizer = ChunkSizer::new(1000, 100, 100_000, 500);
        sizer.feedback(1000, 1000);
        sizer.feedback(1000, 10);
        assert_eq!(sizer.rows(), 500);
    }

    #[test]
    fn rounds_are_short_until_the_size_is_found() {
        let mut sizer = ChunkSizer::new(1000, 100, 100_000, 500);
        assert_eq!(sizer.chunks_per_worker(4), 1);
        sizer.feedback(1000, 10);
        sizer.rows();
        assert_eq!(sizer.chunks_per_worker(4), 1, "held down to threefold");
        sizer.feedback(3000, 400);
        sizer.rows();
        assert_eq!(sizer.chunks_per_worker(4), 4);
        sizer.feedback(3000, 5000);
        sizer.rows();
        assert_eq!(sizer.chunks_per_worker(4), 4, "shrinking needs no short rounds");
    }

    #[test]
    fn stays_within_bounds_and_ignores_empty_chunks() {
        let mut sizer = ChunkSizer::new(1000, 100, 2000, 500);
        sizer.feedback(1000, 1_000_000);
        assert_eq!(sizer.rows(), 100);
        sizer.feedback(0, 1);
        assert_eq!(sizer.rows(), 100);
        for _ in 0..10 {
            sizer.feedback(2000, 0);
            sizer.rows();
        }
        assert_eq!(sizer.rows(), 2000);
    }
}
