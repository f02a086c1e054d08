//! Refusals that lie in the server: replicas, read-only servers, logs by statement.

use anyhow::Result;
use underpin_tests::servers::{TestDb, sql};

use crate::bench::{execute, refused};

const STATEMENT: &str = "ALTER TABLE t ADD n INT";

pub(crate) fn check(db: &TestDb) -> Result<()> {
    if let Some(replica) = db.replica_url() {
        db.endpoints().wait_caught_up(std::time::Duration::from_secs(30))?;
        let parts = ["the server is a replica of", "Connect to its source"];
        refused(db, &replica, STATEMENT, &parts)?;
    }
    let mut switches = vec![("read_only", "0", "1", "the server is read-only")];
    if db.endpoints().flavor.is_mariadb() {
        switches.push(("binlog_format", "ROW", "MIXED", "not row-based"));
        switches.push(("binlog_format", "ROW", "STATEMENT", "binlog_format = 'ROW'"));
    } else {
        switches.push(("super_read_only", "0", "1", "the server is read-only"));
        let asked = "SELECT VARIABLE_VALUE FROM performance_schema.global_variables WHERE \
                     VARIABLE_NAME = 'binlog_format'";
        if sql::first_row(&db.url(), asked)?.is_some() {
            switches.push(("binlog_format", "ROW", "STATEMENT", "binlog_format = 'ROW'"));
        }
    }
    for (variable, usual, bad, said) in switches {
        execute(db, &[&format!("SET GLOBAL {variable} = {bad}")])?;
        let checked = refused(db, &db.url(), STATEMENT, &[said]);
        execute(db, &[&format!("SET GLOBAL {variable} = {usual}")])?;
        checked?;
    }
    // Switching the stricter one off leaves the other on.
    execute(db, &["SET GLOBAL read_only = 0"])
}
