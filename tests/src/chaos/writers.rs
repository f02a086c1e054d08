//! The application: writers that write everything twice, in one transaction, into the table and a mirror.
//!
//! So both tables say the same after every transaction, also one of which nobody knows whether it was
//! committed. Each writer writes rows of its own only; a statement therefore means the same for both
//! tables. After the swap columns may be gone or bear other names: a writer learns that by the server's
//! error, once, and the mirror stays as it was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::servers::Flavor;
use crate::workload::Dice;

use super::change::Change;
use super::session::{Refused, Session};
use super::shape::{Key, Shape};

/// Errors that an application has by itself: duplicates, deadlocks, snapshots that cannot be serialised.
const OWN: [&str; 7] = ["1062", "1213", "1205", "23505", "40P01", "40001", "1020"];
/// A column that the change has renamed or dropped.
const GONE: [&str; 2] = ["1054", "42703"];
/// How often in a row a column's name may turn out to be the other one.
const TURNED_MAX: u32 = 4;
/// What a session is told by a server that goes down or comes up.
const OUTAGE: [&str; 8] = ["57P01", "57P02", "57P03", "1053", "1927", "1158", "1160", "1161"];

/// What the writers work on.
pub(super) struct Scene {
    pub(super) shape: Shape,
    pub(super) change: Change,
    pub(super) url: String,
    /// The table and its mirror, quoted with their schemas.
    pub(super) tables: [String; 2],
    pub(super) pause_ms: u64,
    pub(super) repeatable: bool,
}

/// What they did and saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) transactions: u64,
    pub(super) rows: u64,
    pub(super) longest: Duration,
    /// How often each kind of error came, with its first words.
    pub(super) errors: BTreeMap<String, (u64, String)>,
    /// Errors that nothing explains.
    pub(super) unexplained: Vec<String>,
}

/// Writers at work.
pub(super) struct Writers {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Seen>>,
}

impl Writers {
    pub(super) fn start(scene: &Arc<Scene>, count: i64, seed: u64) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let threads = (0..count)
            .map(|number| {
                let mut writer = Writer {
                    scene: Arc::clone(scene),
                    session: None,
                    dice: Dice::new(
                        seed ^ (u64::try_from(number).unwrap_or(0) + 1).wrapping_mul(7919),
                    ),
                    number,
                    count,
                    keys: (1..=i64::try_from(scene.shape.rows).unwrap_or(0))
                        .filter(|n| n % count == number)
                        .collect(),
                    next: i64::try_from(scene.shape.rows).unwrap_or(0) + 1,
                    after: false,
                    turned: 0,
                    seen: Seen::default(),
                };
                let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
                thread::spawn(move || writer.write_until(&stop, &done))
            })
            .collect();
        Self { stop, done, threads }
    }

    /// Transactions so far.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub(super) fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for thread in self.threads {
            let Ok(seen) = thread.join() else {
                all.unexplained.push("a writer panicked".to_owned());
                continue;
            };
            all.transactions += seen.transactions;
            all.rows += seen.rows;
            all.longest = std::cmp::max(all.longest, seen.longest);
            all.unexplained.extend(seen.unexplained);
            for (kind, (times, words)) in seen.errors {
                let sum = all.errors.entry(kind).or_insert((0, words));
                sum.0 += times;
            }
        }
        all
    }
}

struct Writer {
    scene: Arc<Scene>,
    session: Option<Session>,
    dice: Dice,
    number: i64,
    count: i64,
    /// Numbers of keys that are there, or may be.
    keys: Vec<i64>,
    next: i64,
    /// Whether the change has been seen.
    after: bool,
    /// How often that was the other way round since the last transaction that went well.
    turned: u32,
    seen: Seen,
}

impl Writer {
    fn write_until(&mut self, stop: &AtomicBool, done: &AtomicU64) -> Seen {
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            match self.transact() {
                Ok(()) => {
                    self.turned = 0;
                    self.seen.transactions += 1;
                    done.fetch_add(1, Ordering::Relaxed);
                    self.seen.longest = std::cmp::max(self.seen.longest, began.elapsed());
                }
                Err(refused) => self.recover(&refused, began.elapsed()),
            }
            let pause = self.dice.below(self.scene.pause_ms * 2 + 1);
            thread::sleep(Duration::from_millis(pause));
        }
        std::mem::take(&mut self.seen)
    }

    fn recover(&mut self, refused: &Refused, took: Duration) {
        let sum =
            self.seen.errors.entry(refused.code.clone()).or_insert((0, refused.words.clone()));
        sum.0 += 1;
        let code = refused.code.as_str();
        let change = &self.scene.change;
        let is_change = !change.renamed.is_empty() || !change.dropped.is_empty();
        let may_turn = if change.turns { self.turned < TURNED_MAX } else { !self.after };
        if GONE.contains(&code) && is_change && may_turn {
            self.after = !self.after;
            self.turned += 1;
        } else if refused.is_lost() || OUTAGE.contains(&code) {
            self.session = None;
            // a server that is down answers at once
            thread::sleep(Duration::from_millis(100));
        } else if code == "unequal"
            && self.scene.repeatable
            && self.scene.shape.flavor.is_postgres()
        {
            // a snapshot from before the swap sees no rows that were written anew since: documented, as
            // after the server's own rewriting ALTER; the transaction is rolled back
        } else if !OWN.contains(&code) {
            self.seen.unexplained.push(refused.to_string());
        } else {
            self.seen.longest = std::cmp::max(self.seen.longest, took);
        }
        if let Some(session) = &mut self.session
            && session.run("ROLLBACK").is_err()
        {
            self.session = None;
        }
    }

    fn session(&mut self) -> Result<&mut Session, Refused> {
        if self.session.is_none() {
            let mut session = Session::open(&self.scene.url)?;
            let level = if self.scene.repeatable { "REPEATABLE READ" } else { "READ COMMITTED" };
            session.run(&match self.scene.shape.flavor.is_postgres() {
                true => format!("SET default_transaction_isolation = '{level}'"),
                false => format!("SET SESSION TRANSACTION ISOLATION LEVEL {level}"),
            })?;
            self.session = Some(session);
        }
        self.session.as_mut().ok_or_else(|| Refused::lost("no session"))
    }

    fn run(&mut self, statement: &str) -> Result<u64, Refused> {
        self.session()?.run(statement)
    }

    fn transact(&mut self) -> Result<(), Refused> {
        self.run("BEGIN")?;
        let steps = 1 + self.dice.below(5);
        let long = self.dice.below(60) == 0;
        for _ in 0..steps {
            if self.dice.below(12) == 0 {
                self.run("SAVEPOINT part")?;
                self.step()?;
                self.run("ROLLBACK TO SAVEPOINT part")?;
            } else {
                self.step()?;
            }
            if long {
                thread::sleep(Duration::from_millis(self.dice.below(400)));
            }
        }
        let undo = self.dice.below(10) == 0;
        self.run(if undo { "ROLLBACK" } else { "COMMIT" }).map(|_| ())
    }

    /// One thing on both tables.
    fn step(&mut self) -> Result<(), Refused> {
        match self.dice.below(20) {
            0..=4 => self.insert(),
            5..=10 => self.update(),
            11..=13 => self.delete(),
            14 => self.change_key(),
            15 | 16 => self.swap_unique(),
            17 | 18 => self.many(),
            _ => self.upsert(),
        }
    }

    fn some_key(&mut self) -> Option<i64> {
        self.dice.one_of(&self.keys)
    }

    fn fresh(&mut self) -> i64 {
        // one past every key of ours, still of our class
        let behind = self.next + (self.number - self.next).rem_euclid(self.count);
        self.next = behind + 1;
        behind
    }

    /// The name that a column bears in one of the tables; none where it is gone.
    fn column<'a>(&'a self, column: &'a str, mirror: bool) -> Option<&'a str> {
        let change = &self.scene.change;
        if mirror || !self.after {
            return Some(column);
        }
        if change.dropped.iter().any(|gone| gone == column) {
            return None;
        }
        let renamed = change.renamed.iter().find(|(from, _)| from == column);
        Some(renamed.map_or(column, |(_, to)| to.as_str()))
    }

    fn insert_text(&self, mirror: bool, rows: &[Vec<(String, String)>]) -> String {
        let shape = &self.scene.shape;
        let first = rows.first().map_or(&[][..], Vec::as_slice);
        let kept = |cells: &[(String, String)]| -> Vec<(String, String)> {
            cells
                .iter()
                .filter_map(|(name, value)| {
                    Some((shape.q(self.column(name, mirror)?), value.clone()))
                })
                .collect()
        };
        let names: Vec<String> = kept(first).into_iter().map(|(name, _)| name).collect();
        let tuples = rows.iter().map(|cells| {
            let values: Vec<String> = kept(cells).into_iter().map(|(_, value)| value).collect();
            format!("({})", values.join(", "))
        });
        let tuples: Vec<String> = tuples.collect();
        format!(
            "INSERT INTO {} ({}) VALUES {}",
            self.scene.tables[usize::from(mirror)],
            names.join(", "),
            tuples.join(", ")
        )
    }

    fn insert(&mut self) -> Result<(), Refused> {
        let scene = Arc::clone(&self.scene);
        let n = self.fresh();
        if scene.shape.key == Key::Auto {
            return self.insert_drawn(n);
        }
        let mut rows = vec![scene.shape.row(&mut self.dice, n, self.number, false)];
        let names: Vec<String> = rows.concat().into_iter().map(|(name, _)| name).collect();
        for _ in 0..[0, 0, 0, 3, 30][super::values::at(&mut self.dice, 5)] {
            let n = self.fresh();
            let row = scene.shape.row(&mut self.dice, n, self.number, false);
            // rows of one statement have the same columns
            if row.iter().map(|(name, _)| name).eq(names.iter()) {
                self.keys.push(n);
                rows.push(row);
            }
        }
        self.keys.push(n);
        let texts = [self.insert_text(false, &rows), self.insert_text(true, &rows)];
        self.both(&texts, true)
    }

    /// The server draws the key; the mirror gets the same.
    fn insert_drawn(&mut self, n: i64) -> Result<(), Refused> {
        let scene = Arc::clone(&self.scene);
        // far from the numbers that the server draws
        let n = n + 1_000_000_000;
        let mut cells = scene.shape.row(&mut self.dice, n, self.number, false);
        cells.remove(0);
        let text = self.insert_text(false, std::slice::from_ref(&cells));
        let key = scene.shape.key_names.first().cloned().unwrap_or_default();
        let id = if scene.shape.flavor.is_postgres() {
            let text = format!("{text} RETURNING {}", scene.shape.q(&key));
            self.session()?.first(&text)?
        } else {
            self.run(&text)?;
            self.session()?.drawn().map(|id| id.to_string())
        };
        let Some(id) = id else {
            return Err(Refused { code: "no id".to_owned(), words: text });
        };
        self.keys.extend(id.parse::<i64>());
        cells.insert(0, (key, id));
        let text = self.insert_text(true, &[cells]);
        self.seen.rows += 1;
        self.run(&text).map(|_| ())
    }

    fn both(&mut self, texts: &[String; 2], same: bool) -> Result<(), Refused> {
        let there = self.run(&texts[0])?;
        let mirrored = self.run(&texts[1])?;
        self.seen.rows += mirrored;
        if same && there != mirrored {
            let words =
                format!("{there} rows in the table, {mirrored} in the mirror: {}", texts[0]);
            return Err(Refused { code: "unequal".to_owned(), words });
        }
        Ok(())
    }

    /// Whether both servers count the rows met; MySQL counts those that became another.
    fn counts(&self) -> bool {
        self.scene.shape.flavor.is_postgres()
    }

    fn update(&mut self) -> Result<(), Refused> {
        let scene = Arc::clone(&self.scene);
        let Some(n) = self.some_key() else { return Ok(()) };
        let mut sets = vec![("b".to_owned(), self.dice.below(20).to_string())];
        for column in &scene.shape.columns {
            if !column.frozen && self.dice.below(3) == 0 {
                sets.push((column.name.clone(), scene.shape.value(&mut self.dice, column)));
            }
        }
        let texts = [false, true].map(|mirror| {
            let sets = sets.iter().filter_map(|(name, value)| {
                Some(format!("{} = {value}", scene.shape.q(self.column(name, mirror)?)))
            });
            let sets: Vec<String> = sets.collect();
            let table = &scene.tables[usize::from(mirror)];
            format!("UPDATE {table} SET {} WHERE {}", sets.join(", "), scene.shape.key_is(n))
        });
        self.both(&texts, self.counts())
    }

    fn delete(&mut self) -> Result<(), Refused> {
        let Some(n) = self.some_key() else { return Ok(()) };
        let scene = Arc::clone(&self.scene);
        let texts = [0, 1].map(|table| {
            format!("DELETE FROM {} WHERE {}", scene.tables[table], scene.shape.key_is(n))
        });
        self.both(&texts, true)
    }

    /// Whether a row that comes again, or under another key, would have to have what it had before: who
    /// takes the change back cannot know.
    fn is_bound_to_its_key(&self) -> bool {
        self.scene.change.turns && self.scene.shape.columns.iter().any(|column| column.frozen)
    }

    fn change_key(&mut self) -> Result<(), Refused> {
        if self.is_bound_to_its_key() {
            return Ok(());
        }
        let scene = Arc::clone(&self.scene);
        let Some(from) = self.some_key() else { return Ok(()) };
        // a number drawn by the server is never negative
        let to = if scene.shape.key == Key::Auto { -self.fresh() } else { self.fresh() };
        self.keys.push(to);
        let values = scene.shape.key_values(to);
        let sets = scene.shape.key_names.iter().zip(values);
        let sets: Vec<String> =
            sets.map(|(name, value)| format!("{} = {value}", scene.shape.q(name))).collect();
        let texts = [0, 1].map(|table| {
            let is = scene.shape.key_is(from);
            format!("UPDATE {} SET {} WHERE {is}", scene.tables[table], sets.join(", "))
        });
        self.both(&texts, self.counts())
    }

    /// Two rows exchange what is unique.
    fn swap_unique(&mut self) -> Result<(), Refused> {
        let scene = Arc::clone(&self.scene);
        let (Some(one), Some(two)) = (self.some_key(), self.some_key()) else { return Ok(()) };
        if one == two {
            return Ok(());
        }
        let mut values = Vec::new();
        for n in [one, two] {
            let text = format!("SELECT u FROM {} WHERE {}", scene.tables[1], scene.shape.key_is(n));
            let lock = if scene.repeatable { " FOR UPDATE" } else { "" };
            let found = self.session()?.rows(&format!("{text}{lock}"))?;
            let Some(row) = found.into_iter().next() else { return Ok(()) };
            values.push(row.into_iter().next().flatten().unwrap_or_else(|| "NULL".to_owned()));
        }
        let steps =
            [(one, "NULL".to_owned()), (two, values.swap_remove(0)), (one, values.concat())];
        for (n, value) in steps {
            let texts = [0, 1].map(|table| {
                let is = scene.shape.key_is(n);
                format!("UPDATE {} SET u = {value} WHERE {is}", scene.tables[table])
            });
            self.both(&texts, self.counts())?;
        }
        Ok(())
    }

    /// Many rows at once: all of ours in a bucket.
    fn many(&mut self) -> Result<(), Refused> {
        let scene = Arc::clone(&self.scene);
        let (writer, bucket) = (self.number, self.dice.below(20));
        let rest = if self.dice.below(6) == 0 { "" } else { " AND u % 7 = 0" };
        let is = format!("WHERE w = {writer} AND b = {bucket}{rest}");
        let deletes = self.dice.below(5) == 0 && !rest.is_empty();
        let to = self.dice.below(20);
        let texts = [0, 1].map(|table| match deletes {
            true => format!("DELETE FROM {} {is}", scene.tables[table]),
            false => format!("UPDATE {} SET b = {to} {is}", scene.tables[table]),
        });
        self.both(&texts, self.counts() || deletes)
    }

    fn upsert(&mut self) -> Result<(), Refused> {
        let scene = Arc::clone(&self.scene);
        let Some(n) = self.some_key() else { return Ok(()) };
        if self.is_bound_to_its_key() {
            let is = scene.shape.key_is(n);
            let ask = format!("SELECT 1 FROM {} WHERE {is} FOR UPDATE", scene.tables[1]);
            if self.session()?.first(&ask)?.is_none() {
                return Ok(());
            }
        }
        let mut cells = scene.shape.row(&mut self.dice, n, self.number, false);
        // a value that is another row's would make it that row's upsert
        if let Some(u) = cells.iter_mut().find(|(name, _)| name == "u") {
            "NULL".clone_into(&mut u.1);
        }
        let keys: Vec<String> =
            scene.shape.key_names.iter().map(|name| scene.shape.q(name)).collect();
        let bucket = self.dice.below(20);
        let replaces = scene.shape.flavor != Flavor::PostgresDistro
            && !scene.shape.flavor.is_postgres()
            && !scene.shape.columns.iter().any(|column| column.frozen)
            && self.dice.below(2) == 0;
        let texts = [false, true].map(|mirror| {
            let text = self.insert_text(mirror, std::slice::from_ref(&cells));
            if scene.shape.flavor.is_postgres() {
                return format!(
                    "{text} ON CONFLICT ({}) DO UPDATE SET b = {bucket}",
                    keys.join(", ")
                );
            }
            match replaces {
                true => text.replacen("INSERT", "REPLACE", 1),
                false => format!("{text} ON DUPLICATE KEY UPDATE b = {bucket}"),
            }
        });
        self.both(&texts, false)
    }
}
