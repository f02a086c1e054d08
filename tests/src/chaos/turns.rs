//! The way back: a change that was made is taken back, made again and ended, under the same faults and
//! writers.

use anyhow::{Context, Result, bail};

use crate::proxy::Proxy;
use crate::workload::Dice;

use super::deeds::Deeds;
use super::drive::{self, Ended, Goal};
use super::faults;
use super::round::{Place, Told};
use super::writers::Writers;

/// Which table bears the name; none: only a look can tell.
pub(super) type Live = Option<Side>;

/// One of the two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Old,
    New,
}

/// Takes none to four turns and ends the run; returns which table is live then.
pub(super) fn take(
    dice: &mut Dice,
    place: &Place,
    proxy: &Proxy,
    deeds: &mut Deeds<'_>,
    writers: &Writers,
    told: &mut Told,
) -> Result<Live> {
    let mut live = Some(Side::New);
    for number in 0..dice.below(5) {
        let goal = match (live, dice.below(8)) {
            // it stands so already, or does not: both must be taken
            (_, 0) => Goal::Revert,
            (_, 1) => Goal::Again,
            (Some(Side::Old), _) => Goal::Again,
            _ => Goal::Revert,
        };
        pause(dice);
        let ended = turn(dice, goal, place, proxy, deeds, writers, told)
            .with_context(|| format!("turn {}, {}", number + 1, goal.name()))?;
        live = match ended {
            Ended::Reached if goal == Goal::Revert => Some(Side::Old),
            Ended::Reached => Some(Side::New),
            Ended::Aborted => None,
            Ended::Stopped(words) => {
                told.stops.push(format!("{}: {words}", goal.name()));
                drive::abort(place, told).with_context(|| format!("leaving it: {words}"))?;
                break;
            }
            Ended::Refused(words) => bail!("{} was refused: {words}", goal.name()),
        };
    }
    pause(dice);
    match turn(dice, Goal::Finish, place, proxy, deeds, writers, told).context("finish")? {
        Ended::Reached => Ok(live),
        other => bail!("finish ended as {other:?}"),
    }
}

/// The writers go on.
fn pause(dice: &mut Dice) {
    std::thread::sleep(std::time::Duration::from_millis(20 + dice.below(250)));
}

fn turn(
    dice: &mut Dice,
    goal: Goal,
    place: &Place,
    proxy: &Proxy,
    deeds: &mut Deeds<'_>,
    writers: &Writers,
    told: &mut Told,
) -> Result<Ended> {
    let verb: &[&str] = match goal {
        Goal::Again => &["resume", "--again"],
        Goal::Finish => &["finish"],
        _ => &["revert"],
    };
    let url = proxy.url(&place.database);
    let words = verb.iter().copied().chain([url.as_str(), place.named.as_str()]);
    deeds.begin(words.map(str::to_owned).collect(), faults::draw_for_turn(dice));
    let ended = drive::drive(place, goal, deeds, writers, told)?;
    let how = match &ended {
        Ended::Reached => goal.name().to_owned(),
        Ended::Aborted => format!("{} left", goal.name()),
        Ended::Stopped(_) => format!("{} stopped", goal.name()),
        Ended::Refused(_) => format!("{} refused", goal.name()),
    };
    told.turns.push(how);
    Ok(ended)
}
