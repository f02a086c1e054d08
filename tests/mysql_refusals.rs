//! What is refused before anything is created: each by name, with exit code 3 and what helps.

#[path = "mysql_refusals/account.rs"]
mod account;
#[path = "mysql_refusals/bench.rs"]
mod bench;
#[path = "mysql_refusals/server.rs"]
mod server;
#[path = "mysql_refusals/table.rs"]
mod table;

use underpin_tests::servers::{Flavor, TestDb};

/// Each server has its own database; what is set for a whole server comes last.
fn check(flavor: Flavor) -> anyhow::Result<()> {
    let Some(db) = TestDb::new(flavor) else { return Ok(()) };
    table::check(&db)?;
    account::check(&db)?;
    server::check(&db)
}

#[test]
fn refused_by_name_on_mysql() {
    check(Flavor::MySql97).unwrap();
}

#[test]
fn refused_by_name_on_mariadb() {
    check(Flavor::MariaDbDistro).unwrap();
}

#[test]
fn refused_by_name_on_mariadb_118() {
    check(Flavor::MariaDb118).unwrap();
}
