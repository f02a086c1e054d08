//! What goes wrong during a round, drawn beforehand: which fault, and when.

use crate::proxy::Deed;
use crate::workload::Dice;

use super::values::at;

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The program is ended by this signal.
    Signal(&'static str),
    /// The program stands still for so long, in milliseconds.
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
/// Words of statements that traps wait for.
const WORDS: [&str; 14] = [
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
];

impl Fault {
    /// Its kind, for the tally.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Signal(name) => format!("signal {name}"),
            Self::Trap(_, _, deed, _) => format!("proxy {deed:?}"),
            Self::Set(_) => "set".to_owned(),
            other => {
                let text = format!("{other:?}");
                text.split('(').next().unwrap_or_default().to_owned()
            }
        }
    }

    fn draw(dice: &mut Dice) -> Self {
        let long = |dice: &mut Dice| 300 + dice.below(3000);
        match dice.below(30) {
            0..=3 => Self::Signal(["KILL", "KILL", "TERM", "INT"][at(dice, 4)]),
            4 => Self::Freeze(long(dice)),
            5..=12 => {
                let deeds = [
                    Deed::CutBefore,
                    Deed::CutAfter,
                    Deed::VanishAfter,
                    Deed::Hold,
                    Deed::DeafServer,
                ];
                let word = WORDS[at(dice, 14)];
                let nth = u32::try_from(dice.below(12)).unwrap_or(0);
                Self::Trap(word, nth, deeds[at(dice, 5)], 200 + dice.below(6000))
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
            27 => Self::Replica(long(dice)),
            _ => Self::Corrupt,
        }
    }
}

/// Up to five of them.
pub(super) fn draw(dice: &mut Dice, postgres: bool) -> Vec<Planned> {
    let count = dice.below(6);
    (0..count)
        .map(|_| {
            let fault = Fault::draw(dice);
            let phase = match (&fault, postgres) {
                (Fault::Corrupt, _) => Some("copy"),
                (Fault::Trap(..), _) if dice.below(2) == 0 => None,
                (_, true) => dice.one_of(&POSTGRES_PHASES),
                (_, false) => dice.one_of(&PHASES),
            };
            let longest = [20, 200, 1000][at(dice, 3)];
            Planned { phase, after_ms: dice.below(longest), fault }
        })
        .collect()
}
