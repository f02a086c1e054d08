//! `abort` leaves the database as it was, proven by a dump before and after: in every phase, by the runner
//! and without one, and where the abort itself is killed half-way.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod postgres_steps;

use std::time::Instant;

use underpin_tests::cli;
use underpin_tests::proxy::{Deed, Proxy, Trap};
use underpin_tests::runner::Runner;
use underpin_tests::servers::{Flavor, TestDb};

use postgres_steps::{LIMIT, make_table, on_each, rows, run};

const CHANGE: &str = "ALTER TABLE t ADD n int NOT NULL DEFAULT 7";

/// A statement of each phase; the last ones wait for their swap.
const PHASES: [(&str, &[&str]); 5] = [
    ("prepare", &["pg_catalog.xid8 NOT NULL DEFAULT"]),
    ("copy", &["^SET LOCAL ROLE NONE", ".marks"]),
    // the plan has the words of the index too, on a table of its own, before there is a run
    ("indexes", &["maintenance_work_mem", "CREATE UNIQUE INDEX"]),
    ("verify", &[]),
    ("swap", &[]),
];

/// Everything in the database but the state schema: OIDs, files, definitions, rights, comments, counters
/// and rows. What every new object of ours would show in the catalogues is there too.
const DUMP: [&str; 14] = [
    "SELECT concat_ws('|', 'schema', oid, nspname, nspowner, nspacl) FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_temp%' AND nspname NOT LIKE 'pg\\_toast\\_temp%' ORDER BY 1",
    "SELECT concat_ws('|', 'class', c.oid, relname, relfilenode, relkind, relowner, relacl, reloptions, relreplident, relhasindex, relhasrules, relhastriggers, relrowsecurity, reltablespace) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'underpin', 'pg_toast') ORDER BY 1",
    "SELECT concat_ws('|', 'column', attrelid, attnum, attname, atttypid, atttypmod, attnotnull, attacl, attoptions, attstattarget, attidentity, attgenerated, atthasdef) FROM pg_attribute JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'underpin', 'pg_toast') ORDER BY 1",
    "SELECT concat_ws('|', 'constraint', k.oid, conname, conrelid, confrelid, convalidated, pg_get_constraintdef(k.oid)) FROM pg_constraint k JOIN pg_namespace n ON n.oid = connamespace WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'underpin') ORDER BY 1",
    "SELECT concat_ws('|', 'index', indexrelid, indisvalid, indisclustered, indisreplident, pg_get_indexdef(indexrelid)) FROM pg_index JOIN pg_class c ON c.oid = indrelid JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'underpin', 'pg_toast') ORDER BY 1",
    "SELECT concat_ws('|', 'trigger', oid, tgname, tgrelid, tgenabled, tgfoid) FROM pg_trigger ORDER BY 1",
    "SELECT concat_ws('|', 'function', p.oid, proname, proacl, prosrc) FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1",
    "SELECT concat_ws('|', 'policy', oid, polname, polrelid) FROM pg_policy ORDER BY 1",
    "SELECT concat_ws('|', 'publication', oid, prpubid, prrelid) FROM pg_publication_rel ORDER BY 1",
    "SELECT concat_ws('|', 'type', t.oid, typname, typacl) FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'underpin', 'pg_toast') ORDER BY 1",
    "SELECT concat_ws('|', 'comment', objoid, classoid, objsubid, description) FROM pg_description WHERE objoid >= 16384 AND description NOT LIKE 'underpin:%' ORDER BY 1",
    "SELECT concat_ws('|', 'sequence', last_value, is_called) FROM t_no_seq",
    "SELECT concat_ws('|', 'row', id, u, v, no) FROM t ORDER BY id",
    "SELECT concat_ws('|', 'open', run_id) FROM underpin.runs WHERE state = 'open' UNION ALL SELECT concat_ws('|', 'live', l.run_id) FROM underpin.live l JOIN underpin.runs r ON r.run_id = l.run_id WHERE r.state = 'open'",
];

async fn dump(db: &TestDb) -> Vec<String> {
    let mut lines = Vec::new();
    for query in DUMP {
        lines.extend(rows(db, query).await);
    }
    lines
}

fn start(url: &str) -> Runner {
    let words = [
        "run",
        url,
        CHANGE,
        "--strategy",
        "shadow",
        "--replica",
        "none",
        "--yes",
        "--swap",
        "wait",
    ];
    Runner::start(&words).unwrap()
}

fn spring(trap: &Trap, runner: &mut Runner) {
    let until = Instant::now() + LIMIT;
    while trap.sprung() == 0 {
        let ended = runner.has_ended().unwrap();
        assert!(!ended && Instant::now() < until, "no statement came: {}", runner.story());
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// Gives the abort once more that was killed: it may have come to its end all the same.
fn abort_again(db: &TestDb) {
    let called = cli::call(&["abort", &db.url(), "t"]).unwrap();
    assert!([0, 3].contains(&called.code()), "{}", called.complaint());
}

fn abort(db: &TestDb, what: &str) {
    let called = cli::call(&["abort", &db.url(), "t"]).unwrap();
    assert!(called.code() == 0, "{what}: {}", called.complaint());
}

/// Brings the run to the phase and aborts it beside its runner.
fn ended(db: &TestDb, phase: &str) {
    let mut runner = start(&db.url());
    assert!(runner.wait_phase(phase, LIMIT).unwrap(), "{}", runner.story());
    abort(db, phase);
    let called = runner.wait(LIMIT).unwrap();
    assert!(called.ended.code.is_some(), "{}", called.complaint());
}

#[test]
fn an_abort_leaves_the_database_as_it_was() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 300).await;
        let client = db.client().await.unwrap();
        run(&client, &[
            "ALTER TABLE t ADD no serial",
            "COMMENT ON TABLE t IS 'the rows'",
            "COMMENT ON COLUMN t.v IS 'text'",
            "GRANT SELECT (v) ON t TO PUBLIC",
            "CREATE INDEX by_v ON t (v)",
            "ALTER TABLE t SET (fillfactor = 90)",
            "CREATE TABLE child (t int REFERENCES t (id))",
            "CREATE PUBLICATION told FOR TABLE t",
            "CREATE POLICY own ON t USING (true)",
            "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "CREATE TRIGGER mine BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION nothing()",
        ])
        .await;
        // The state is there: it stays, as the history.
        ended(&db, "swap");
        let before = dump(&db).await;
        assert!(before.len() > 300, "{before:?}");
        for (phase, words) in PHASES {
            let proxy = Proxy::start(&db.endpoints().primary).unwrap();
            let trap = (!words.is_empty()).then(|| proxy.trap(words, Deed::Hold));
            let mut runner = start(&proxy.url(db.name()));
            match &trap {
                Some(trap) => spring(trap, &mut runner),
                None => assert!(runner.wait_phase(phase, LIMIT).unwrap(), "{}", runner.story()),
            }
            runner.kill9().unwrap();
            drop(proxy);
            abort(&db, phase);
            assert_eq!(dump(&db).await, before, "{phase}, without a runner");
        }
        for phase in ["copy", "swap"] {
            ended(&db, phase);
            assert_eq!(dump(&db).await, before, "{phase}, beside the runner");
        }
        // The abort itself is killed half-way: behind the triggers, and behind the first schema.
        for (words, skip) in [("DROP TRIGGER", 0), ("; DROP TABLE", 0), ("; DROP SCHEMA", 1)] {
            let mut runner = start(&db.url());
            assert!(runner.wait_phase("swap", LIMIT).unwrap(), "{}", runner.story());
            runner.kill9().unwrap();
            let proxy = Proxy::start(&db.endpoints().primary).unwrap();
            let trap = proxy.trap_nth(&[words], skip, Deed::Hold);
            let mut first = Runner::start(&["abort", &proxy.url(db.name()), "t"]).unwrap();
            spring(&trap, &mut first);
            first.kill9().unwrap();
            drop(proxy);
            abort_again(&db);
            assert_eq!(dump(&db).await, before, "an abort that was killed at {words}");
        }
    });
}
