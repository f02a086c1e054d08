//! Verification that proves itself: what is wrong in the shadow of a real run is found and named, mended
//! or never swapped; and nobody is told that more is proven than was compared.
//!
//! Owns what both test programs share.
#![allow(unreachable_pub)] // each program takes what it needs

mod corruptions;
pub mod proofs;

use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use serde_json::Value;
use underpin_tests::cli::{self, Called};
use underpin_tests::proxy::{Deed, Proxy, Trap};
use underpin_tests::runner::Runner;
use underpin_tests::servers::{Flavor, TestDb, pg, sql};

use corruptions::{Corruption, change, every_row, table, ten};

/// How long anything may take that a busy machine does in seconds.
pub const LIMIT: Duration = Duration::from_secs(300);

/// Rows of the table, and those of its beginning that are copied when the run is paused.
const ROWS: u32 = 6_000;
const COPIED: u64 = 600;

/// Rows that are compared as one range.
const FEW: u32 = 500;

/// A database with the table, and words to talk about its run.
pub struct Ground {
    pub db: TestDb,
    pub flavor: Flavor,
}

impl Ground {
    pub fn new(flavor: Flavor, rows: u32) -> Option<Self> {
        let db = TestDb::new(flavor)?;
        sql::execute(&db.url(), table(flavor, rows)).unwrap();
        Some(Self { db, flavor })
    }

    pub fn start(&self, url: &str, more: &[&str]) -> Runner {
        let (change, kind) = (change(self.flavor), ["--strategy", "shadow", "--replica", "none"]);
        let words = [&["run", url, change, "--yes"], &kind[..], more].concat();
        Runner::start(&words).unwrap()
    }

    /// Calls `underpin COMMAND URL t …`.
    pub fn call(&self, command: &str, more: &[&str]) -> Called {
        let url = self.db.url();
        cli::call(&[&[command, &url, "t"], more].concat()).unwrap()
    }

    /// The same, which must end well.
    pub fn ask(&self, command: &str, more: &[&str]) -> Called {
        let called = self.call(command, more);
        assert!(called.code() == 0, "{command}: {}", called.complaint());
        called
    }

    pub fn execute(&self, statements: Vec<String>) {
        sql::execute(&self.db.url(), statements).unwrap();
    }

    /// The first column of a query, which is text.
    pub fn texts(&self, query: &str) -> Vec<String> {
        let (url, query) = (self.db.url(), query.to_owned());
        sql::block_on(async move {
            if sql::is_postgres(&url) {
                let rows = pg::text_rows(&pg::connect(&url).await?, &query).await?;
                return Ok(rows.into_iter().map(|mut row| row.remove(0).unwrap()).collect());
            }
            Ok(sql::connect(&url).await?.query(query).await?)
        })
        .unwrap()
    }

    pub fn every_row(&self) -> Vec<String> {
        self.texts(every_row(self.flavor))
    }

    /// The shadow, quoted.
    fn shadow(&self) -> String {
        if !self.flavor.is_postgres() {
            return "`t~up_new`".to_owned();
        }
        let query = "SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace AS s ON s.oid = \
                     relnamespace WHERE relkind = 'r' AND nspname LIKE 'underpin\\_%' AND relname = 't'";
        let found = self.texts(query);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    }

    /// A run that is paused in its copy, so much of which is done that the first rows are.
    fn paused_in_copy(&self, more: &[&str]) -> Runner {
        // There is time enough to pause it on a busy machine.
        let slow = ["--rate", "300", "--workers", "1", "--chunk-time", "50ms"];
        let mut runner = self.start(&self.db.url(), &[&slow[..], more].concat());
        let far = |event: &Value| event["rows_copied"].as_u64() >= Some(2_500);
        assert!(runner.wait_for(LIMIT, far).unwrap().is_some(), "{}", runner.story());
        self.ask("pause", &[]);
        let is_paused = |event: &Value| event["event"] == "paused" && event["kind"] == "asked";
        assert!(runner.wait_for(LIMIT, is_paused).unwrap().is_some(), "{}", runner.story());
        let copied = |event: &&Value| event["rows_copied"].as_u64().is_some();
        let copied = runner.events().iter().rev().find(copied).cloned().unwrap();
        assert!(
            copied["rows_copied"].as_u64() < Some(u64::from(ROWS)),
            "it was too fast: {copied}"
        );
        runner
    }

    fn let_go(&self) {
        self.ask("set", &["rate=off"]);
        self.ask("resume", &[]);
    }

    fn corrupt(&self, corruptions: &[Corruption]) {
        let shadow = self.shadow();
        for corruption in corruptions {
            self.execute(vec![corruption.sql(self.flavor, &shadow)]);
        }
    }
}

/// Whether the run waits for `underpin swap`.
fn is_ready(event: &Value) -> bool {
    event["event"] == "paused" && event["kind"] == "swap-asked"
}

/// The texts of a list in an event.
fn texts_of(event: &Value, field: &str) -> Vec<String> {
    let list = event[field].as_array().unwrap_or_else(|| panic!("no {field} in {event}"));
    list.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// How many of the corruptions are among what was told; prints it.
fn found(what: &str, flavor: Flavor, corruptions: &[Corruption], samples: &[String]) {
    let is_found =
        |corruption: &&Corruption| corruption.told().iter().all(|told| samples.contains(told));
    let count = corruptions.iter().filter(is_found).count();
    let kinds: Vec<&str> = corruptions.iter().map(|corruption| corruption.kind.name).collect();
    eprintln!("{}: {what}: {count} of {} ({})", flavor.name(), corruptions.len(), kinds.join(", "));
    let missed: Vec<_> = corruptions.iter().filter(|it| !is_found(it)).collect();
    assert!(missed.is_empty(), "{what} missed {missed:?}; found {samples:#?}");
    let expected: usize = corruptions.iter().map(|corruption| corruption.told().len()).sum();
    assert_eq!(samples.len(), expected, "{what}: too many: {samples:#?}");
}

/// Ten corruptions before the run's own verification, which mends them; ten after it, which `verify` finds
/// and leaves alone.
pub fn ten_of_ten(flavor: Flavor, seed: u64) {
    let Some(ground) = Ground::new(flavor, ROWS) else { return };
    let before = ground.every_row();
    let mut runner = ground.paused_in_copy(&["--swap", "wait"]);
    let first = ten(seed, false, COPIED);
    ground.corrupt(&first);
    let looked = ground.call("verify", &["--nice", "100%"]);
    if flavor.is_postgres() {
        assert_eq!(
            looked.code(),
            3,
            "by blocks there is nothing to compare: {}",
            looked.complaint()
        );
    } else {
        assert_eq!(looked.code(), 5, "{}", looked.complaint());
        let event = looked.event("compared").unwrap();
        assert_eq!((&event["extent"], &event["complete"]), (&"copied".into(), &true.into()));
        let rows = event["rows"].as_u64().unwrap();
        assert!((COPIED..u64::from(ROWS)).contains(&rows), "{event}");
        found("`verify` beside the copy", flavor, &first, &texts_of(event, "samples"));
    }
    ground.let_go();
    assert!(runner.wait_for(LIMIT, is_ready).unwrap().is_some(), "{}", runner.story());
    let events = runner.events();
    let different = events.iter().filter(|event| event["event"] == "different");
    let samples: Vec<String> = different.flat_map(|event| texts_of(event, "samples")).collect();
    found("the run's own verification", flavor, &first, &samples);
    let mended = ground.call("verify", &["--nice", "100%"]);
    assert!(mended.code() == 0, "{:?} {}", mended.events, mended.complaint());
    let event = mended.event("compared").unwrap();
    assert_eq!((&event["extent"], &event["rows"]), (&"all".into(), &ROWS.into()), "{event}");

    let second = ten(seed, true, COPIED);
    ground.corrupt(&second);
    // Twice: nothing was mended by the first.
    for _ in 0..2 {
        let looked = ground.call("verify", &["--nice", "100%"]);
        assert_eq!(looked.code(), 5, "{}", looked.complaint());
        let samples = texts_of(looked.event("compared").unwrap(), "samples");
        found("`verify` at the swap", flavor, &second, &samples);
    }
    ground.execute(second.iter().flat_map(Corruption::touch).collect());
    let touched = ground.call("verify", &["--nice", "100%"]);
    assert!(touched.code() == 0, "what is pending is no difference: {:?}", touched.events);
    ground.ask("swap", &[]);
    let called = runner.wait(LIMIT).unwrap();
    assert!(called.code() == 0, "{}", called.complaint());
    let done = &called.ended.done;
    assert_eq!(done["verified"], "equal", "{done}");
    assert_eq!(done["rows_repaired"].as_u64(), Some(samples.len() as u64), "{done}");
    assert_eq!(ground.every_row(), before, "the rows are not right after the repair");
    let gone = ground.call("verify", &[]);
    assert_eq!(gone.code(), 3, "no run any more: {}", gone.complaint());
}

/// What is corrupted again after the repair is never swapped. The run's comparison is held before each of
/// its two looks, and each time the row is made wrong.
pub fn never_swaps(flavor: Flavor) {
    let Some(ground) = Ground::new(flavor, FEW) else { return };
    let before = ground.every_row();
    let proxy = Proxy::start(&ground.db.endpoints().primary).unwrap();
    // A statement springs one trap, and each trap springs once.
    let looks = [(); 2].map(|()| proxy.trap(snapshot(flavor), Deed::Hold));
    let mut runner = ground.start(&proxy.url(ground.db.name()), &["--workers", "1"]);
    let key = 246;
    for (look, wrong) in looks.iter().zip(["once", "twice"]) {
        wait_sprung(look, &mut runner);
        let shadow = ground.shadow();
        ground.execute(vec![format!("UPDATE {shadow} SET v = '{wrong}' WHERE id = {key}")]);
        look.release();
    }
    let called = runner.wait(LIMIT).unwrap();
    let story = underpin_tests::runner::story(&called.events);
    assert_eq!(called.code(), 5, "{}\n{story}", called.complaint());
    let told = format!("id={key} (differs in v)");
    assert!(called.complaint().contains(&told), "{}", called.complaint());
    assert!(called.event("swap").is_none(), "{story}");
    let different = called.events.iter().filter(|event| event["event"] == "different").count();
    assert_eq!(different, 2, "found, written once more, found again: {story}");
    assert_eq!(ground.every_row(), before, "the source was touched");
    ground.ask("abort", &[]);
    assert_eq!(ground.every_row(), before);
}

/// Words by which a worker begins to compare a range.
fn snapshot(flavor: Flavor) -> &'static [&'static str] {
    match flavor.is_postgres() {
        true => &["REPEATABLE READ, READ ONLY"],
        false => &["CONSISTENT SNAPSHOT"],
    }
}

/// Waits until the trap has sprung; fails where the program ends before.
fn wait_sprung(trap: &Trap, runner: &mut Runner) {
    let until = Instant::now() + LIMIT;
    while trap.sprung() == 0 {
        let ended = runner.has_ended().unwrap();
        assert!(!ended && Instant::now() < until, "the range is not compared: {}", runner.story());
        std::thread::sleep(Duration::from_millis(5));
    }
}
