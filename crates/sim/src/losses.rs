//! Answers that are lost at a place that was chosen, rather than thrown for: every action, every commit
//! and every definition of ours is such a place.

/// An answer to lose: its number in the run, and whether what was asked for is done all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoseAt {
    /// Which one, counted from 1.
    pub nth: u64,
    /// Whether it is done.
    pub is_done: bool,
}

/// How an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Heard,
    /// The connection breaks before the server gets to it.
    NotDone,
    /// The connection breaks after the server has done it.
    Done,
}

/// Counts answers, and loses one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Losses {
    at: Option<LoseAt>,
    pub(crate) answers: u64,
}

impl Losses {
    pub(crate) fn new(at: Option<LoseAt>) -> Self {
        Self { at, answers: 0 }
    }

    /// What becomes of the next answer.
    pub(crate) fn next(&mut self) -> Answer {
        self.answers += 1;
        match self.at {
            Some(at) if at.nth == self.answers && at.is_done => Answer::Done,
            Some(at) if at.nth == self.answers => Answer::NotDone,
            _ => Answer::Heard,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_that_was_chosen_is_lost_and_no_other() {
        let mut losses = Losses::new(Some(LoseAt { nth: 2, is_done: true }));
        assert_eq!(
            [losses.next(), losses.next(), losses.next()],
            [Answer::Heard, Answer::Done, Answer::Heard]
        );
    }
}
