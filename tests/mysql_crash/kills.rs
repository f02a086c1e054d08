//! `kill -9` of the program at moments drawn by seeded dice, spread over all phases, each followed by the
//! same command.

use std::collections::HashMap;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use serde_json::Value;
use underpin_tests::runner::Runner;
use underpin_tests::servers::{Flavor, TestDb};
use underpin_tests::workload::{self, Dice, Layout, Settings, Workload};

use crate::mysql_steps::{LIMIT, on_each, rows, start};
use crate::{only_fence_errors, only_orders_left};

const LAYOUT: Layout = Layout { rows: 40_000, writers: 4 };

/// Kills of one run before it is let go on to its end.
const KILLS_A_RUN: usize = 5;

/// Where the next kill falls: a phase, and the longest time after its beginning in milliseconds.
/// Copying comes more often: it is the longest and has the most to lose.
const MOMENTS: [(&str, u64); 12] = [
    ("plan", 150),
    ("prepare", 100),
    ("copy", 60),
    ("copy", 200),
    ("copy", 400),
    ("copy", 900),
    ("indexes", 200),
    ("catch-up", 20),
    ("verify", 100),
    ("verify", 400),
    ("swap", 250),
    ("finish", 40),
];

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What was seen of a run's new column: for each row the value that it was first given.
#[derive(Default)]
struct Draws {
    column: String,
    first: HashMap<i64, String>,
}

impl Draws {
    /// Notes rows that have been copied. Whether they were copied again is looked at when it is known
    /// which of them a writer has touched.
    async fn note(&mut self, db: &TestDb) {
        let mut conn = db.conn().await.unwrap();
        let select = format!("SELECT id, CAST({} AS CHAR) FROM `orders~up_new`", self.column);
        let Ok(found) = conn.query::<(i64, String), _>(select).await else { return };
        for (id, drawn) in found {
            self.first.entry(id).or_insert(drawn);
        }
    }

    /// How many rows that nobody has touched were noted, and how many of these were drawn anew.
    async fn check(&self, db: &TestDb, touched: impl Fn(i64) -> bool) -> (usize, usize) {
        let mut conn = db.conn().await.unwrap();
        let select = format!("SELECT id, CAST({} AS CHAR) FROM orders", self.column);
        let found: Vec<(i64, String)> = conn.query(select).await.unwrap();
        let known = found.iter().filter(|(id, _)| !touched(*id));
        let known: Vec<_> =
            known.filter_map(|(id, drawn)| Some((self.first.get(id)?, drawn))).collect();
        (known.len(), known.iter().filter(|(first, now)| first != now).count())
    }
}

/// Whether the column is there and no run is open: then a kill came after the end.
async fn is_done(db: &TestDb, column: &str) -> bool {
    let open = "SELECT COUNT(*) FROM information_schema.TABLES AS t WHERE TABLE_SCHEMA = DATABASE() \
                AND TABLE_NAME = 'orders~up_log'";
    let shown = format!("SHOW COLUMNS FROM orders LIKE '{column}'");
    rows(db, open).await == ["0"]
        && !db.conn().await.unwrap().query::<mysql_async::Row, _>(shown).await.unwrap().is_empty()
        && rows(
            db,
            "SELECT COUNT(*) FROM underpin.runs WHERE schema_name = DATABASE() AND state = 'open'",
        )
        .await
            == ["0"]
}

/// The phases in order, by the names of the events.
const PHASES: [&str; 9] =
    ["plan", "prepare", "copy", "indexes", "catch-up", "verify", "swap", "finish", "done"];

fn place(event: &Value) -> Option<usize> {
    PHASES.iter().position(|name| event["phase"] == *name)
}

/// Waits for a drawn moment and kills the program there; `None` where it ended before, else the place of
/// the phase in which it was killed. `from`: where the run was killed the last time.
fn kill_at_a_moment(mut runner: Runner, from: usize, dice: &mut Dice) -> Option<usize> {
    // Not too far ahead, or the late phases, which take no time to reach, would have all kills.
    let near = |name: &str| {
        PHASES
            .iter()
            .position(|known| *known == name)
            .is_some_and(|at| (from..from + 3).contains(&at))
    };
    let moments: Vec<_> = MOMENTS.into_iter().filter(|(name, _)| near(name)).collect();
    let (phase, longest_ms) = dice.one_of(&moments)?;
    let later = Duration::from_millis(dice.below(longest_ms + 1));
    if phase != "plan" {
        let wanted = PHASES.iter().position(|name| *name == phase);
        runner.wait_for(LIMIT, |event| place(event) >= wanted).unwrap()?;
    }
    std::thread::sleep(later);
    if runner.has_ended().unwrap() {
        return None;
    }
    let killed = runner.kill9().unwrap();
    Some(killed.events.iter().rev().find_map(place).unwrap_or(from))
}

#[test]
fn killed_at_twenty_moments_it_goes_on_and_loses_nothing() {
    let kills = usize::try_from(from_environment("UNDERPIN_TEST_KILLS", 20)).unwrap();
    let seed = from_environment("UNDERPIN_TEST_SEED", 5);
    on_each(&Flavor::ALL[..2], async |db| {
        workload::load(&db.url(), LAYOUT).await.unwrap();
        let settings = Settings { url: db.url(), layout: LAYOUT, rate_per_s: Some(150), seed: 11 };
        let writers = Workload::start(&settings).await.unwrap();
        let mut dice = Dice::new(seed);
        let (mut told, mut runs) = (Vec::new(), Vec::new());
        while told.len() < kills {
            let column = format!("made_{}", runs.len());
            let change = format!(
                "ALTER TABLE orders ADD {column} TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)"
            );
            let mut draws = Draws { column: column.clone(), ..Draws::default() };
            let options = ["--workers", "2", "--chunk-time", "20ms"];
            let mut place = 0;
            for _ in told.len()..std::cmp::min(kills, told.len() + KILLS_A_RUN) {
                let runner = start(&db.url(), &change, &options);
                let Some(killed) = kill_at_a_moment(runner, place, &mut dice) else { break };
                place = killed;
                told.push(PHASES[place]);
                draws.note(&db).await;
                if is_done(&db, &column).await {
                    break;
                }
            }
            if !is_done(&db, &column).await {
                let called = start(&db.url(), &change, &options).wait(LIMIT).unwrap();
                assert!(called.code() == 0, "after {told:?}: {}", called.complaint());
                let copied = called.ended.number("rows_copied").unwrap();
                // Some went while it ran, more came: the table grows from run to run.
                let allowed = rows(&db, "SELECT COUNT(*) * 6 DIV 5 FROM orders").await;
                let most: u64 = allowed[0].parse().unwrap();
                assert!(copied < most, "{copied} rows copied, and {most} allowed: some twice");
            }
            assert!(is_done(&db, &column).await, "after {told:?}");
            runs.push(draws);
        }
        let outcome = writers.stop().await.unwrap();
        let found = workload::compare_table(&db.url(), LAYOUT, &outcome.models).await.unwrap();
        assert!(found.none() && found.unsure == 0, "after {told:?}: {found}");
        only_fence_errors(&outcome.errors, db.endpoints().flavor);
        let touched =
            |id: i64| outcome.models.iter().any(|model| model.changed().contains_key(&id));
        let (mut known, mut anew) = (0, 0);
        for draws in &runs {
            let (of_run, drawn_anew) = draws.check(&db, touched).await;
            known += of_run;
            anew += drawn_anew;
        }
        assert_eq!(anew, 0, "rows of done chunks were copied again, of {known}");
        assert!(known > 40_000, "only {known} rows had been copied before a kill");
        only_orders_left(&db.url()).await;
        eprintln!(
            "{}: {} kills in {} runs at {told:?}; {known} rows were copied before a kill and none \
             again; {found}; writers' errors: {}",
            db.endpoints().flavor.name(),
            told.len(),
            runs.len(),
            outcome.errors
        );
    });
}
