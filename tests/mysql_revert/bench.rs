//! The commands of a run whose way back is kept, and what they must answer.

use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use underpin_tests::cli::{self, Called};
use underpin_tests::runner::{Runner, story};
use underpin_tests::servers::{Flavor, TestDb};

use crate::mysql_steps::LIMIT;

/// One of each family.
pub(crate) const BOTH: [Flavor; 2] = [Flavor::ALL[0], Flavor::ALL[1]];

/// What goes on with a run that is on record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Turn {
    Revert,
    Again,
    Finish,
}

/// Starts `underpin run … --finish keep`.
pub(crate) fn start_change(url: &str, change: &str) -> Runner {
    let words = ["run", url, change, "--strategy", "shadow", "--replica", "none", "--yes"];
    Runner::start(&[&words[..], &["--finish", "keep"]].concat()).unwrap()
}

/// Starts a turn of the run of table `t`.
pub(crate) fn start_turn(url: &str, turn: Turn) -> Runner {
    let words: &[&str] = match turn {
        Turn::Revert => &["revert", url, "t"],
        Turn::Again => &["resume", "--again", url, "t"],
        Turn::Finish => &["finish", url, "t"],
    };
    Runner::start(words).unwrap()
}

/// Makes the change; it can be taken back then.
pub(crate) fn make(db: &TestDb, change: &str) {
    let called = start_change(&db.url(), change).wait(LIMIT).unwrap();
    assert!(called.code() == 0, "{}\n{}", called.complaint(), story(&called.events));
}

/// Takes a turn, which must end well.
pub(crate) fn take(db: &TestDb, turn: Turn) -> Called {
    let called = start_turn(&db.url(), turn).wait(LIMIT).unwrap();
    assert!(called.code() == 0, "{turn:?}: {}\n{}", called.complaint(), story(&called.events));
    called
}

/// Takes a turn, which must stop; what it said.
pub(crate) fn stopped(db: &TestDb, turn: Turn) -> String {
    let called = start_turn(&db.url(), turn).wait(LIMIT).unwrap();
    assert_eq!(called.code(), 1, "{turn:?}: {}\n{}", called.complaint(), story(&called.events));
    called.complaint()
}

/// `underpin abort`.
pub(crate) fn abort(db: &TestDb) -> Called {
    cli::call(&["abort", &db.url(), "t"]).unwrap()
}

/// Statements of the application, in a session of their own. Where a program was killed in a swap its
/// fence may stand for some seconds: the application tries again, as it is told.
pub(crate) async fn write(db: &TestDb, statements: &[&str]) {
    let mut app = db.conn().await.unwrap();
    let until = Instant::now() + LIMIT;
    for statement in statements {
        while let Err(error) = app.query_drop(*statement).await {
            let is_fence = error.to_string().contains("underpin is swapping");
            assert!(is_fence && Instant::now() < until, "{statement}: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
