//! Refusals that lie in the account: each privilege that is missing is named with a GRANT, and that
//! GRANT helps. With exactly the documented privileges a whole change goes through.

use anyhow::{Context, Result, ensure};
use underpin_tests::cli::{self, Called};
use underpin_tests::servers::{Flavor, TestDb};

use crate::bench::{ensure_refused, execute, state_schema};

/// On the database of the table.
const ON_SCHEMA: [&str; 11] = [
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "CREATE",
    "DROP",
    "ALTER",
    "INDEX",
    "TRIGGER",
    "LOCK TABLES",
    "CREATE TEMPORARY TABLES",
];

/// On the database of the program's own state.
const ON_STATE: [&str; 6] = ["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "LOCK TABLES"];

/// On everything.
fn globally(flavor: Flavor) -> &'static [&'static str] {
    if flavor.is_mariadb() {
        &["PROCESS", "SLAVE MONITOR", "REPLICATION MASTER ADMIN"]
    } else {
        &["PROCESS", "REPLICATION CLIENT", "REPLICATION SLAVE"]
    }
}

/// The account of this test.
struct Account<'a> {
    db: &'a TestDb,
    user: String,
}

impl Account<'_> {
    fn url(&self) -> String {
        self.db.url().replacen("root@", &format!("{}:secret@", self.user), 1)
    }

    /// A database as a GRANT names it.
    fn pattern(schema: &str) -> String {
        format!("`{}`.*", schema.replace('_', "\\_"))
    }

    fn needed(&self) -> Vec<(&'static str, String)> {
        let schema = Self::pattern(self.db.name());
        let state = Self::pattern(&state_schema(self.db));
        let mut needed: Vec<(&str, String)> =
            ON_SCHEMA.iter().map(|name| (*name, schema.clone())).collect();
        needed.extend(ON_STATE.iter().map(|name| (*name, state.clone())));
        let flavor = self.db.endpoints().flavor;
        needed.extend(globally(flavor).iter().map(|name| (*name, "*.*".to_owned())));
        needed
    }

    fn plan(&self) -> Result<Called> {
        let state = state_schema(self.db);
        let statement = "ALTER TABLE t MODIFY v VARCHAR(20)";
        cli::call(&["plan", &self.url(), statement, "--state-schema", &state])
    }
}

pub(crate) fn check(db: &TestDb) -> Result<()> {
    let user = format!("u_{}", db.name());
    let account = Account { db, user: user.clone() };
    execute(db, &["SET GLOBAL log_bin_trust_function_creators = 1"])?;
    execute(db, &[&format!("CREATE USER {user} IDENTIFIED BY 'secret'")])?;
    let checked = everything_is_named(&account)
        .and_then(|()| each_is_needed(&account))
        .and_then(|()| triggers_need_trust(&account))
        .and_then(|()| a_change_goes_through(&account))
        .and_then(|()| a_role_will_do(&account));
    // as other tests expect the server
    let usual = "SET GLOBAL log_bin_trust_function_creators = 0";
    execute(db, &[&format!("DROP USER {user}"), usual])?;
    checked
}

/// With no privilege at all, all of them are named at once.
fn everything_is_named(account: &Account<'_>) -> Result<()> {
    // The server lets nobody into a database in which he may do nothing.
    let schema = Account::pattern(account.db.name());
    execute(account.db, &[&format!("GRANT SELECT ON {schema} TO {}", account.user)])?;
    let called = account.plan()?;
    let on_state =
        format!("{} ON {}", ON_STATE.join(", "), Account::pattern(&state_schema(account.db)));
    let global = format!("GRANT {} ON *.* TO", globally(account.db.endpoints().flavor).join(", "));
    let on_schema = format!("{} ON {schema}", ON_SCHEMA.get(1..).unwrap_or_default().join(", "));
    ensure_refused(&called, &[&on_schema, &on_state, &global]).context("nothing granted")
}

/// Takes each away; follows the advice; all is well again.
fn each_is_needed(account: &Account<'_>) -> Result<()> {
    let (db, user) = (account.db, &account.user);
    for (privilege, target) in account.needed() {
        execute(db, &[&format!("GRANT {privilege} ON {target} TO {user}")])?;
    }
    let called = account.plan()?;
    ensure!(called.code() == 0, "the documented privileges do not do: {}", called.complaint());
    for (privilege, target) in account.needed() {
        if privilege == "SELECT" && target == Account::pattern(db.name()) {
            continue;
        }
        let grant = format!("GRANT {privilege} ON {target} TO `{user}`@`%`");
        let lacks = format!("the account `{user}`@`%` lacks {privilege} on {target}");
        execute(db, &[&format!("REVOKE {privilege} ON {target} FROM {user}")])?;
        ensure_refused(&account.plan()?, &["missing-privilege", &lacks, &grant])?;
        execute(db, &[&grant])?;
    }
    let called = account.plan()?;
    ensure!(called.code() == 0, "the advice did not help: {}", called.complaint());
    Ok(())
}

fn triggers_need_trust(account: &Account<'_>) -> Result<()> {
    let db = account.db;
    execute(db, &["SET GLOBAL log_bin_trust_function_creators = 0"])?;
    let called = account.plan()?;
    let grant = format!("GRANT SUPER ON *.* TO `{}`@`%`", account.user);
    ensure_refused(&called, &["SET GLOBAL log_bin_trust_function_creators = 1", &grant])?;
    execute(db, &[&grant])?;
    let called = account.plan()?;
    ensure!(called.code() == 0, "with SUPER: {}", called.complaint());
    let revoke = format!("REVOKE SUPER ON *.* FROM {}", account.user);
    execute(db, &[&revoke, "SET GLOBAL log_bin_trust_function_creators = 1"])
}

/// A whole change, replicas watched, with nothing beyond the documented privileges.
fn a_change_goes_through(account: &Account<'_>) -> Result<()> {
    let (db, state) = (account.db, state_schema(account.db));
    execute(
        db,
        &[
            "CREATE TABLE small (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, v VARCHAR(10), KEY (v))",
            "INSERT INTO small (v) VALUES ('a'), ('b'), ('c')",
        ],
    )?;
    let statement =
        "ALTER TABLE small MODIFY v VARCHAR(20), ADD n INT NOT NULL DEFAULT 1, ADD UNIQUE (v)";
    let url = account.url();
    let words = ["run", &url, statement, "--yes", "--strategy", "shadow", "--state-schema", &state];
    let called = cli::call(&words)?;
    ensure!(called.code() == 0, "exit code {}: {}", called.code(), called.complaint());
    ensure!(called.ended.verdict() == "equal", "the verdict is {}", called.ended.verdict());
    let watched = called.event("plan").and_then(|plan| plan["replicas"].as_array());
    let expected = usize::from(db.endpoints().replica.is_some());
    ensure!(watched.is_some_and(|list| list.len() >= expected), "no replica was watched");
    // A run that stops can be removed by the same account.
    execute(db, &["INSERT INTO small (v) VALUES ('too long for it')"])?;
    let called = cli::call(&[
        "run",
        &url,
        "ALTER TABLE small MODIFY v VARCHAR(3)",
        "--yes",
        "--strategy",
        "shadow",
        "--state-schema",
        &state,
    ])?;
    ensure!(called.code() == 1, "exit code {}: {}", called.code(), called.complaint());
    let commands = [
        &["list", &url][..],
        &["status", &url],
        &["status", &url, "small"],
        &["history", &url],
        &["history", &url, "small"],
        &["abort", &url, "small"],
    ];
    for words in commands {
        let words: Vec<&str> = words.iter().chain(&["--state-schema", &state]).copied().collect();
        let called = cli::call(&words)?;
        ensure!(called.code() == 0, "{words:?}: {}", called.complaint());
    }
    there_and_back(&url, &state)?;
    execute(db, &[&format!("DROP DATABASE {state}")])
}

/// A change that is taken back, made again and left standing; and a look at what is left over.
fn there_and_back(url: &str, state: &str) -> Result<()> {
    let keep = ["ALTER TABLE small ADD m INT", "--yes", "--strategy", "shadow", "--finish", "keep"];
    let commands = [
        &["run", url, keep[0], keep[1], keep[2], keep[3], keep[4], keep[5]][..],
        &["revert", url, "small"],
        &["resume", "--again", url, "small"],
        &["finish", url, "small"],
        &["leftovers", url],
    ];
    for words in commands {
        let words: Vec<&str> = words.iter().chain(&["--state-schema", state]).copied().collect();
        let called = cli::call(&words)?;
        ensure!(called.code() == 0, "{words:?}: {}", called.complaint());
    }
    Ok(())
}

/// The same by a role that is active by default.
fn a_role_will_do(account: &Account<'_>) -> Result<()> {
    let (db, user) = (account.db, &account.user);
    let role = format!("r_{}", db.name());
    let mut statements = vec![format!("CREATE ROLE {role}")];
    for (privilege, target) in account.needed() {
        statements.push(format!("REVOKE {privilege} ON {target} FROM {user}"));
        statements.push(format!("GRANT {privilege} ON {target} TO {role}"));
    }
    statements.push(format!("GRANT {role} TO {user}"));
    let by = if db.endpoints().flavor.is_mariadb() { "FOR" } else { "TO" };
    statements.push(format!("SET DEFAULT ROLE {role} {by} {user}"));
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    execute(db, &statements)?;
    let called = account.plan()?;
    execute(db, &[&format!("DROP ROLE {role}")])?;
    ensure!(called.code() == 0, "by a role: {}", called.complaint());
    Ok(())
}
