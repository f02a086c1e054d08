//! Turns: taking a made change back, making it again, ending it.
//!
//! A turn is taken while nobody holds the run, by writing another checkpoint; from there on it is a run
//! like any other, from catching up to the swap. Owns which turn may be taken from where.

use crate::checkpoint::{Checkpoint, Counters, Phase};
use crate::key::Frontier;
use crate::way::Way;

/// What may be asked of a run whose swap is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Bring the old table back, with everything that was written since.
    Revert,
    /// Put the new table in its place again, after a revert.
    Again,
    /// End the run: remove the way back.
    Finish,
}

/// Why a turn cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CannotTurn {
    /// The swap has not been made.
    #[error(
        "the change is not made yet: `underpin abort` ends it, the same `underpin run` goes on"
    )]
    NotMade,
    /// The run is being ended.
    #[error("the run is being ended, and the way back with it")]
    Ending,
    /// The other table is on its way.
    #[error(
        "the table is being exchanged just now: wait for it, or `underpin abort` leaves it as it is"
    )]
    UnderWay,
}

impl Checkpoint {
    /// The checkpoint from which the turn is gone on with. Where the run stands as asked for already, or
    /// is on its way there, that is this one.
    ///
    /// The caller has seen to it that everything of the last swap has been done ([`Phase::Arrive`]).
    ///
    /// # Errors
    /// As [`CannotTurn`] says.
    pub fn turned(&self, turn: Turn) -> Result<Self, CannotTurn> {
        let Some(stands) = self.stands else { return Err(CannotTurn::NotMade) };
        if self.phase >= Phase::Finish {
            return if turn == Turn::Finish { Ok(self.clone()) } else { Err(CannotTurn::Ending) };
        }
        let is_at_rest = self.phase >= Phase::Arrive;
        let wanted = match turn {
            Turn::Finish if is_at_rest => {
                return Ok(Self { phase: Phase::Finish, ..self.clone() });
            }
            Turn::Finish => return Err(CannotTurn::UnderWay),
            Turn::Revert => Way::Back,
            Turn::Again => Way::Forward,
        };
        Ok(if stands == wanted {
            self.at_rest()
        } else if !is_at_rest {
            self.clone()
        } else {
            Self {
                phase: Phase::CatchUp,
                way: wanted,
                frontier: Frontier::End,
                verified: Frontier::Start,
                sampled: false,
                round: None,
                counters: Counters { rows_verified: 0, ..self.counters.clone() },
                ..self.clone()
            }
        })
    }

    /// The checkpoint of a run that stays with the table that is live: a turn under way is left.
    pub fn at_rest(&self) -> Self {
        match self.stands {
            Some(stands) if self.phase < Phase::Arrive => {
                Self { phase: Phase::Revertible, way: stands, round: None, ..self.clone() }
            }
            _ => self.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(phase: Phase, way: Way, stands: Option<Way>) -> Checkpoint {
        Checkpoint { phase, way, stands, frontier: Frontier::End, ..Checkpoint::begin() }
    }

    #[test]
    fn a_made_change_is_taken_back_and_made_again() {
        let made = at(Phase::Revertible, Way::Forward, Some(Way::Forward));
        let back = made.turned(Turn::Revert).unwrap();
        assert_eq!((back.phase, back.way), (Phase::CatchUp, Way::Back));
        assert_eq!(back.stands, Some(Way::Forward), "until the swap the new table is live");
        assert_eq!(back.turned(Turn::Revert).unwrap(), back, "it goes on");
        let gone_back = at(Phase::Revertible, Way::Back, Some(Way::Back));
        assert_eq!(gone_back.turned(Turn::Revert).unwrap(), gone_back);
        let again = gone_back.turned(Turn::Again).unwrap();
        assert_eq!((again.phase, again.way), (Phase::CatchUp, Way::Forward));
    }

    #[test]
    fn a_turn_that_is_left_stays_with_the_table_that_is_live() {
        let going = at(Phase::Verify, Way::Back, Some(Way::Forward));
        let left = going.turned(Turn::Again).unwrap();
        assert_eq!((left.phase, left.way), (Phase::Revertible, Way::Forward));
        assert_eq!(going.at_rest(), left);
    }

    #[test]
    fn what_is_not_made_is_not_turned_and_what_ends_neither() {
        for turn in [Turn::Revert, Turn::Again, Turn::Finish] {
            let copying = at(Phase::Copy, Way::Forward, None);
            assert_eq!(copying.turned(turn), Err(CannotTurn::NotMade));
        }
        let ending = at(Phase::Finish, Way::Forward, Some(Way::Forward));
        assert_eq!(ending.turned(Turn::Revert), Err(CannotTurn::Ending));
        assert_eq!(ending.turned(Turn::Finish), Ok(ending.clone()));
        let going = at(Phase::Swap, Way::Back, Some(Way::Forward));
        assert_eq!(going.turned(Turn::Finish), Err(CannotTurn::UnderWay));
    }
}
