//! Statements that the application prepares just when the triggers are installed.

use std::ops::RangeFrom;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Statement};
use underpin_dialect::Shadow;
use underpin_tests::servers::{Flavor, TestDb};

use crate::mysql_steps::{Steps, make_table, on_each};

const PREPARERS: u32 = 6;

/// What each of them keeps: the newest of its statements.
const KEPT_MAX: usize = 1500;

/// Prepares without executing until told to stop; returns the session and the newest statements.
async fn prepare_on_and_on(db: TestDbUrl, until: Arc<AtomicBool>) -> (Conn, Vec<Statement>) {
    let mut conn = db.connect().await;
    let mut kept = std::collections::VecDeque::new();
    while !until.load(Ordering::Relaxed) {
        let statement = conn.prep("DELETE FROM t WHERE id = ?").await.unwrap();
        kept.push_back(statement);
        if kept.len() > KEPT_MAX
            && let Some(old) = kept.pop_front()
        {
            conn.close(old).await.unwrap();
        }
    }
    (conn, kept.into())
}

/// The address of a test's database, for tasks that outlive a borrow of it.
struct TestDbUrl(String);

impl TestDbUrl {
    /// Every statement is prepared anew: no cache.
    async fn connect(&self) -> Conn {
        let options = mysql_async::Opts::from_url(&self.0).unwrap();
        let options = mysql_async::OptsBuilder::from_opts(options).stmt_cache_size(0);
        Conn::new(options).await.unwrap()
    }
}

/// MariaDB tells by time whether a prepared statement knows a trigger, and keeps the trigger's time to
/// a hundredth of a second. One that is prepared within it finds no change log whenever it is executed.
/// Here it is a DELETE: its trigger is installed last, and a statement that is older than any of the
/// triggers is prepared again.
#[test]
fn a_statement_prepared_while_the_triggers_are_installed_finds_the_log() {
    on_each(&Flavor::ALL, async |db: TestDb| {
        make_table(&db, 2 * PREPARERS * u32::try_from(KEPT_MAX).unwrap()).await;
        let until = Arc::new(AtomicBool::new(false));
        let preparers: Vec<_> = (0..PREPARERS)
            .map(|_| tokio::spawn(prepare_on_and_on(TestDbUrl(db.url()), Arc::clone(&until))))
            .collect();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let steps = Steps::begin(&db, "ALTER TABLE t ADD n INT NOT NULL DEFAULT 7").await;
        until.store(true, Ordering::Relaxed);
        let mut sessions = Vec::new();
        for preparer in preparers {
            sessions.push(preparer.await.unwrap());
        }
        let mut next_id = 1..;
        execute_all(&mut sessions, &mut next_id).await;
        let mut control = steps.control().await;
        control.abort(&steps.spec).await.unwrap();
        // what they know of the log that is gone is in nobody's way
        execute_all(&mut sessions, &mut next_id).await;
    });
}

async fn execute_all(sessions: &mut [(Conn, Vec<Statement>)], ids: &mut RangeFrom<u32>) {
    for (conn, statements) in sessions {
        assert!(!statements.is_empty());
        for (statement, id) in statements.iter().zip(&mut *ids) {
            conn.exec_drop(statement, (id,)).await.unwrap();
        }
    }
}
