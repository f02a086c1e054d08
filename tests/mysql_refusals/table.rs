//! Refusals that lie in the table or in the statement.

use anyhow::{Result, ensure};
use underpin_tests::cli;
use underpin_tests::servers::TestDb;

use crate::bench::{call, ensure_refused, execute, refused, run, state_schema};

pub(crate) fn check(db: &TestDb) -> Result<()> {
    keys(db)?;
    kinds(db)?;
    foreign_keys(db)?;
    clauses(db)?;
    statements(db)?;
    left_overs(db)
}

fn keys(db: &TestDb) -> Result<()> {
    let url = db.url();
    for (table, definition, why) in [
        ("k_none", "a INT, KEY (a)", "it has no unique index at all"),
        ("k_nullable", "a INT NULL, UNIQUE KEY u1 (a)", "u1: a allows NULL"),
        ("k_prefix", "a TEXT NOT NULL, UNIQUE KEY u2 (a(10))", "u2: it holds only a prefix of a"),
        ("k_float", "a DOUBLE NOT NULL PRIMARY KEY", "PRIMARY: a is of type double"),
        ("k_set", "a SET('x','y') NOT NULL PRIMARY KEY", "PRIMARY: a is of type set('x','y')"),
        ("k_generated", "b INT, a INT AS (b + 1) STORED, UNIQUE KEY u3 (a)", "u3: a"),
    ] {
        execute(db, &[&format!("CREATE TABLE {table} ({definition})")])?;
        let statement = format!("ALTER TABLE {table} ADD new_one INT");
        let parts = ["no-usable-key", why, "by a unique key whose columns are all NOT NULL"];
        refused(db, &url, &statement, &parts)?;
    }
    execute(db, &["CREATE TABLE k_good (a INT NOT NULL PRIMARY KEY, b INT NOT NULL)"])?;
    for (clause, why) in [
        ("DROP PRIMARY KEY", "the new shape has no unique key over these columns"),
        ("DROP COLUMN a, ADD PRIMARY KEY (b)", "a does not survive the change"),
        ("MODIFY a VARCHAR(20) NOT NULL", "a changes from int"),
    ] {
        refused(db, &url, &format!("ALTER TABLE k_good {clause}"), &["no-usable-key", why])?;
    }
    Ok(())
}

fn kinds(db: &TestDb) -> Result<()> {
    let url = db.url();
    let schema = db.name();
    execute(
        db,
        &[
            "CREATE TABLE t (id INT NOT NULL PRIMARY KEY, v VARCHAR(10))",
            "CREATE TABLE e_myisam (id INT NOT NULL PRIMARY KEY) ENGINE=MyISAM",
            "CREATE TABLE e_memory (id INT NOT NULL PRIMARY KEY) ENGINE=MEMORY",
            "CREATE VIEW a_view AS SELECT * FROM t",
            "CREATE TABLE triggered (id INT NOT NULL PRIMARY KEY)",
            "CREATE TRIGGER first_one BEFORE INSERT ON triggered FOR EACH ROW SET @a = 1",
            "CREATE TRIGGER `second one` AFTER DELETE ON triggered FOR EACH ROW SET @a = 1",
        ],
    )?;
    let add = |table: &str| format!("ALTER TABLE {table} ADD n INT");
    refused(db, &url, &add("e_myisam"), &["not-innodb", "e_myisam is stored by MyISAM"])?;
    refused(db, &url, &add("e_memory"), &["not-innodb", "MEMORY", "convert the table to InnoDB"])?;
    refused(db, &url, &add("a_view"), &["no-base-table", "a_view is a view"])?;
    refused(
        db,
        &url,
        &add("triggered"),
        &["trigger first_one stands on the table", "trigger second one stands", "Drop the trigger"],
    )?;
    refused(db, &url, &add("nowhere"), &["no-such-table", &format!("no table {schema}.nowhere")])?;
    refused(db, &url, &add("no_such_database.t"), &["no-such-table", "no_such_database.t"])?;
    let without_database = &db.endpoints().primary;
    refused(db, without_database, &add("t"), &["Name its database"])?;
    // Named in full it needs no database in the URL.
    let named = format!("ALTER TABLE {schema}.t ADD n INT");
    let called = cli::call(&["plan", without_database, &named, "--replica", "none"])?;
    ensure!(called.code() == 0, "{}", called.complaint());
    Ok(())
}

fn foreign_keys(db: &TestDb) -> Result<()> {
    let url = db.url();
    let schema = db.name();
    execute(
        db,
        &[
            "CREATE TABLE parent (id INT NOT NULL PRIMARY KEY, up INT, \
             CONSTRAINT to_itself FOREIGN KEY (up) REFERENCES parent (id))",
            "CREATE TABLE child (id INT NOT NULL PRIMARY KEY, p INT, q INT, \
             CONSTRAINT child_p FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE, \
             CONSTRAINT child_q FOREIGN KEY (q) REFERENCES parent (id))",
        ],
    )?;
    let p =
        format!("foreign key child_p from {schema}.child to {schema}.parent is not handled yet");
    let q =
        format!("foreign key child_q from {schema}.child to {schema}.parent is not handled yet");
    let own = format!("foreign key to_itself from {schema}.parent to {schema}.parent");
    refused(db, &url, "ALTER TABLE child ADD n INT", &[&p, &q, "Drop the constraint"])?;
    refused(db, &url, "ALTER TABLE parent ADD n INT", &[&p, &q, &own])?;
    let adds = "ALTER TABLE t ADD CONSTRAINT added FOREIGN KEY (id) REFERENCES parent (id)";
    refused(db, &url, adds, &["foreign-key-added", "added", "after the change"])
}

fn clauses(db: &TestDb) -> Result<()> {
    let url = db.url();
    for (clause, parts) in [
        ("RENAME TO other", &["rename-table", "renames the table to other", "of its own"][..]),
        ("ADD n INT, RENAME AS other", &["rename-table", "other"]),
        ("TRUNCATE PARTITION p0", &["partition-verb", "Run it directly"]),
        ("DISCARD TABLESPACE", &["tablespace", "Run it directly"]),
        ("ADD d DATE NOT NULL", &["no-default", "column d", "Give it a DEFAULT"]),
        ("ADD g GEOMETRY NOT NULL", &["no-default", "column g"]),
    ] {
        refused(db, &url, &format!("ALTER TABLE t {clause}"), parts)?;
    }
    let ignore = "ALTER IGNORE TABLE t ADD UNIQUE KEY (v)";
    refused(db, &url, ignore, &["alter-ignore", "underpin never drops a row"])?;
    if db.endpoints().flavor.is_mariadb() {
        let versioned = "ALTER TABLE t ADD SYSTEM VERSIONING";
        refused(db, &url, versioned, &["system-versioning", "Run it directly"])?;
    }
    Ok(())
}

/// The server is the judge of what it can read.
fn statements(db: &TestDb) -> Result<()> {
    let url = db.url();
    for (statement, parts) in [
        ("ALTER TABLE t MODFY v INT", &["error in your SQL syntax", "mend the statement"][..]),
        ("ALTER TABLE t MODIFY no_such INT", &["no_such", "mend the statement"]),
        ("ALTER TABLE t ADD v INT", &["Duplicate column name 'v'"]),
        ("ALTER TABLE t ADD KEY (no_such)", &["no_such"]),
    ] {
        refused(db, &url, statement, parts)?;
    }
    Ok(())
}

fn left_overs(db: &TestDb) -> Result<()> {
    let url = db.url();
    let (schema, state) = (db.name(), state_schema(db));
    for name in ["t~up_new", "t~up_log", "t~up_old"] {
        execute(db, &[&format!("CREATE TABLE `{name}` (id INT NOT NULL PRIMARY KEY)")])?;
        let drop = format!("DROP TABLE `{schema}`.`{name}`");
        let parts = ["left-over", &format!("table {schema}.{name}"), "underpin abort", &drop];
        refused(db, &url, "ALTER TABLE t ADD n INT", &parts)?;
        execute(db, &[&drop])?;
    }
    // A run that stopped half-way: another statement is refused, and told how to go on.
    execute(db, &["CREATE TABLE half (id INT NOT NULL PRIMARY KEY, v VARCHAR(10))"])?;
    execute(db, &["INSERT INTO half VALUES (1, 'too long')"])?;
    let called = run(db, &url, "ALTER TABLE half MODIFY v VARCHAR(3)")?;
    ensure!(called.code() == 1, "{}", called.complaint());
    let parts = ["unfinished", "MODIFY v VARCHAR(3)", "MODIFY v VARCHAR(4)", "status", "abort"];
    let other = "ALTER TABLE half MODIFY v VARCHAR(4)";
    ensure_refused(&run(db, &url, other)?, &parts)?;
    let aborted = cli::call(&["abort", &url, "half", "--state-schema", &state])?;
    ensure!(aborted.code() == 0, "{}", aborted.complaint());
    // Without --yes there is nobody to ask.
    let called = call(db, &url, other, &["--strategy", "shadow", "--replica", "none"])?;
    ensure!(called.code() != 0, "it went on without being asked");
    ensure!(called.event("run_started").is_none(), "it began");
    execute(db, &[&format!("DROP DATABASE {state}")])
}
