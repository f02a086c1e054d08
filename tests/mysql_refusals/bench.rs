//! Calling the program for a change, and proving that nothing was created.

use anyhow::{Context, Result, ensure};
use underpin_tests::catalogue;
use underpin_tests::cli::{self, Called};
use underpin_tests::servers::{TestDb, sql};

/// Exit code of a refusal.
const REFUSED: i32 = 3;

/// The name of the database for the program's own state; it does not exist at the start.
pub(crate) fn state_schema(db: &TestDb) -> String {
    format!("{}_state", db.name())
}

/// Runs statements as root.
pub(crate) fn execute(db: &TestDb, statements: &[&str]) -> Result<()> {
    let statements = statements.iter().map(|one| (*one).to_owned()).collect();
    sql::execute(&db.url(), statements)
}

/// `underpin run URL STATEMENT` as a script would call it.
pub(crate) fn run(db: &TestDb, url: &str, statement: &str) -> Result<Called> {
    call(db, url, statement, &["--yes", "--strategy", "shadow", "--replica", "none"])
}

/// The same with other options.
pub(crate) fn call(db: &TestDb, url: &str, statement: &str, options: &[&str]) -> Result<Called> {
    let state = state_schema(db);
    let mut words = vec!["run", url, statement, "--state-schema", &state];
    words.extend(options);
    cli::call(&words)
}

/// The statement is refused, every one of `parts` is said, and nothing has come, gone or changed.
pub(crate) fn refused(db: &TestDb, url: &str, statement: &str, parts: &[&str]) -> Result<()> {
    let before = everything(db)?;
    let called = run(db, url, statement)?;
    ensure_refused(&called, parts).with_context(|| statement.to_owned())?;
    ensure!(everything(db)? == before, "{statement}: something was created or changed");
    Ok(())
}

/// The call was refused and said all this, in its findings or in its complaint.
pub(crate) fn ensure_refused(called: &Called, parts: &[&str]) -> Result<()> {
    let said = format!("{}\n{}", called.findings().join("\n"), called.complaint());
    ensure!(called.code() == REFUSED, "exit code {}: {said}", called.code());
    for part in parts {
        ensure!(said.contains(part), "{part:?} is missing in {said}");
    }
    Ok(())
}

/// All databases of the server by name, and all that the test's own holds.
fn everything(db: &TestDb) -> Result<(Vec<String>, Vec<String>)> {
    // Other tests have databases on the same server, and come and go.
    let names = catalogue::schemas(&db.endpoints().primary)?;
    let ours = names.into_iter().filter(|name| name.starts_with(db.name()));
    Ok((ours.collect(), catalogue::dump(&db.url(), db.name(), "")?))
}
