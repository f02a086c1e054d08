//! A streaming replica that does not replay.

use std::thread;
use std::time::Duration;

use serde_json::Value;
use underpin_tests::runner::Runner;
use underpin_tests::servers::{Flavor, Pair, ServerSpec, pg, sql, wanted};

use super::{LIMIT, SLOW};

/// The copy takes about three seconds on two connections where nothing holds it up.
const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' || i FROM \
                     generate_series(1, 100000) i; ANALYZE t";
const CHANGE: &str = "ALTER TABLE t ALTER v TYPE varchar(20) USING slow(v, 20)";

/// Rows copied, by the reports of progress since event number `from`.
fn copied(events: &[Value], from: usize) -> Vec<u64> {
    let since = events.get(from..).unwrap_or_default();
    let progress = since.iter().filter(|event| event["event"] == "progress");
    progress.filter_map(|event| event["rows_copied"].as_u64()).collect()
}

#[test]
fn the_copy_waits_for_a_replica_that_does_not_replay_and_goes_on_when_it_does() {
    if !wanted(Flavor::PostgresDistro) {
        return;
    }
    let pair = Pair::start(&ServerSpec::new(Flavor::PostgresDistro)).unwrap();
    let url = format!("{}postgres", pair.primary.url());
    sql::execute(&url, vec![SLOW.to_owned(), TABLE.to_owned()]).unwrap();
    pair.wait_caught_up(LIMIT).unwrap();
    pair.stop_applying().unwrap();
    let words = ["run", &url, CHANGE, "--yes", "--workers", "2", "--chunk-time", "50ms"];
    let mut runner = Runner::start(&[&words[..], &["--max-lag", "500ms"]].concat()).unwrap();
    let paused = runner.wait_for(LIMIT, |event| event["event"] == "paused").unwrap();
    let reason = paused.unwrap()["reason"].to_string();
    assert!(reason.contains("replica") && reason.contains("lag"), "{reason}");
    // What was in flight ends; then nothing moves.
    thread::sleep(Duration::from_millis(500));
    let from = runner.events().len();
    thread::sleep(Duration::from_millis(2600));
    let rows = copied(&runner.events(), from);
    assert!(rows.len() >= 2, "{}", runner.story());
    assert!(rows.iter().all(|&count| count == rows[0] && count < 100_000), "{rows:?}");
    pair.start_applying().unwrap();
    let resumed = runner.wait_for(LIMIT, |event| event["event"] == "resumed").unwrap();
    assert!(resumed.is_some(), "{}", runner.story());
    let called = runner.wait(LIMIT).unwrap();
    assert!(called.code() == 0, "{}", called.complaint());
    assert!(called.ended.number("lag_ms_max").unwrap() > 2600, "{}", called.ended.done);

    pair.wait_caught_up(LIMIT).unwrap();
    let sums = "SELECT count(*) || ' ' || sum(hashtextextended(t::text, 0)) || ' ' || \
                pg_typeof(max(v))::text || ' ' || to_regclass('t')::oid::text FROM t";
    let there: Option<String> = pg::first_value(&url, sums).unwrap();
    let replica = format!("{}postgres", pair.replica.url());
    let here: Option<String> = pg::first_value(&replica, sums).unwrap();
    assert!(there.as_ref().is_some_and(|text| text.starts_with("100000 ")), "{there:?}");
    assert_eq!(there, here);
}
