//! Crashes: of the program, of the server, of the connection between them. The same command goes on, and
//! nothing that the application was promised is lost.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod mysql_steps;

#[path = "mysql_crash/cuts.rs"]
mod cuts;
#[path = "mysql_crash/ghosts.rs"]
mod ghosts;
#[path = "mysql_crash/kills.rs"]
mod kills;
#[path = "mysql_crash/server_crashes.rs"]
mod server_crashes;

use mysql_async::prelude::Queryable;
use underpin_tests::servers::{Flavor, sql};
use underpin_tests::workload::Errors;

/// Fails where a writer saw anything but the swap's fence, which servers that need one put up.
fn only_fence_errors(errors: &Errors, flavor: Flavor) {
    let allowed = if flavor.is_mariadb() { errors.of("1213") } else { 0 };
    assert_eq!(errors.total(), allowed, "{errors}");
    assert!(allowed == 0 || errors.to_string().contains("underpin is swapping"), "{errors}");
}

/// Fails where the database holds anything but `orders`.
async fn only_orders_left(url: &str) {
    let mut conn = sql::connect(url).await.unwrap();
    let mut rows = async |query: &str| conn.query::<String, _>(query).await.unwrap();
    assert_eq!(rows("SHOW TABLES").await, ["orders"], "tables");
    let triggers = "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = \
                    DATABASE()";
    assert_eq!(rows(triggers).await, Vec::<String>::new(), "triggers");
    let open = "SELECT run_id FROM underpin.runs WHERE schema_name = DATABASE() AND state = 'open'";
    assert_eq!(rows(open).await, Vec::<String>::new(), "open runs");
}
