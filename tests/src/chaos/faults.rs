//! What goes wrong during a round, drawn beforehand: which fault, and when.

use std::time::Duration;

use crate::proxy::Deed;
use crate::workload::Dice;

use super::values::at;

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The program is ended by this signal.
    Signal(&'static str),
    /// No statement of the program arrives for so long, in milliseconds: it stands still, and so do its
    /// sessions.
    Freeze(u64),
    /// The n-th statement with these words springs a trap.
    Trap(&'static str, u32, Deed, u64),
    /// Every statement takes longer, in milliseconds, for so long.
    Delay(u64, u64),
    /// No connection is let in, for so long.
    Refuse(u64),
    /// One of the program's sessions is ended at the server.
    KillSession,
    /// The server is killed, and started again after so long.
    Crash(u64),
    /// Somebody writes a row and leaves the transaction open.
    IdleWriter(u64),
    /// Somebody reads the table in a transaction and leaves it open.
    LongReader(u64),
    /// Somebody locks the table.
    LockTable(u64),
    /// Somebody locks rows of the shadow, or of the table that is not live.
    LockShadow(u64),
    /// The same command a second time.
    SecondRunner,
    /// `underpin pause`, and `resume` after so long.
    Pause(u64),
    /// `underpin set`.
    Set(&'static str),
    /// `underpin abort`.
    Abort,
    /// The replica applies nothing for so long.
    Replica(u64),
    /// A row of the shadow is changed or removed.
    Corrupt,
}

/// When it comes: so long after the phase began, in milliseconds; without a phase, after the start.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) phase: Option<&'static str>,
    pub(super) after_ms: u64,
    pub(super) fault: Fault,
}

const PHASES: [&str; 6] = ["prepare", "copy", "catch-up", "verify", "swap", "finish"];
const POSTGRES_PHASES: [&str; 8] =
    ["prepare", "copy", "settle", "indexes", "catch-up", "verify", "swap", "finish"];
const TURN_PHASES: [&str; 5] = ["catch-up", "verify", "swap", "arrive", "finish"];
/// Words of statements that traps wait for.
const WORDS: [&str; 16] = [
    "COMMIT",
    "INSERT INTO",
    "DELETE FROM",
    "UPDATE",
    "CREATE TABLE",
    "CREATE TRIGGER",
    "SELECT",
    "RENAME TABLE",
    "UNLOCK TABLES",
    "LOCK TABLE",
    "SET SCHEMA",
    "DROP",
    "underpin",
    "START TRANSACTION",
    "SET checkpoint",
    "SET identity",
];

impl Fault {
    /// Its kind, for the tally.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Signal(name) => format!("signal {name}"),
            Self::Trap(_, _, deed, _) => {
                let text = format!("proxy {deed:?}");
                text.split('(').next().unwrap_or_default().to_owned()
            }
            Self::Set(_) => "set".to_owned(),
            other => {
                let text = format!("{other:?}");
                text.split('(').next().unwrap_or_default().to_owned()
            }
        }
    }

    fn draw(dice: &mut Dice) -> Self {
        let long = |dice: &mut Dice| 200 + dice.below(1800);
        match dice.below(32) {
            0..=3 => Self::Signal(["KILL", "KILL", "TERM", "INT"][at(dice, 4)]),
            4 => Self::Freeze(long(dice)),
            5..=12 => {
                let stall = Duration::from_millis(200 + dice.below(1500));
                let deeds = [
                    Deed::CutBefore,
                    Deed::CutAfter,
                    Deed::VanishAfter,
                    Deed::Hold,
                    Deed::DeafServer,
                    Deed::DeafClient,
                    Deed::StallBefore(stall),
                    Deed::StallAfter(stall),
                ];
                let word = WORDS[at(dice, 16)];
                let nth = u32::try_from(dice.below(12)).unwrap_or(0);
                Self::Trap(word, nth, deeds[at(dice, 8)], 200 + dice.below(3000))
            }
            13 => Self::Delay(5 + dice.below(60), long(dice)),
            14 => Self::Refuse(long(dice)),
            15..=17 => Self::KillSession,
            18 => Self::Crash(dice.below(2500)),
            19 => Self::IdleWriter(long(dice)),
            20 => Self::LongReader(long(dice)),
            21 => Self::LockTable(long(dice)),
            22 => Self::SecondRunner,
            23 | 24 => Self::Pause(long(dice)),
            25 => {
                Self::Set(["workers=1", "nice=50%", "rate=200000", "chunk-time=50ms"][at(dice, 4)])
            }
            26 if dice.below(2) == 0 => Self::Abort,
            28 => Self::LockShadow(long(dice)),
            27 => Self::Replica(long(dice)),
            _ => Self::Corrupt,
        }
    }
}

/// Up to five of them.
pub(super) fn draw(dice: &mut Dice, postgres: bool) -> Vec<Planned> {
    let count = dice.below(6);
    let phases = if postgres { &POSTGRES_PHASES[..] } else { &PHASES };
    (0..count).map(|_| planned(dice, phases)).collect()
}

/// Up to three for the way back, forward again, or the end; an abort more often.
pub(super) fn draw_for_turn(dice: &mut Dice) -> Vec<Planned> {
    let count = [0, 1, 1, 2, 3][at(dice, 5)];
    (0..count)
        .map(|_| {
            let drawn = planned(dice, &TURN_PHASES);
            match drawn.fault {
                Fault::Corrupt => Planned { fault: Fault::Abort, ..drawn },
                _ => drawn,
            }
        })
        .collect()
}

fn planned(dice: &mut Dice, phases: &[&'static str]) -> Planned {
    let fault = Fault::draw(dice);
    let phase = match &fault {
        Fault::Corrupt if phases.contains(&"copy") => Some("copy"),
        Fault::Trap(..) if dice.below(2) == 0 => None,
        _ => dice.one_of(phases),
    };
    let longest = [20, 200, 1000][at(dice, 3)];
    Planned { phase, after_ms: dice.below(longest), fault }
}
