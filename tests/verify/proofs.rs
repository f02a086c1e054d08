//! How far verification goes: on from where it was killed; by a sample, or not at all, and then said so
//! everywhere.

use serde_json::Value;
use underpin_tests::cli::{self, Called};
use underpin_tests::proxy::{Deed, Proxy};
use underpin_tests::servers::Flavor;

use super::{Ground, LIMIT, is_ready, snapshot, wait_sprung};

/// Rows of a table whose comparison takes a while.
const MANY: u32 = 15_000;

fn run_of(ground: &Ground, command: &str, line: &str) -> Value {
    let called = ground.ask(command, if command == "status" { &["--all"] } else { &[] });
    let found = called.event(line).cloned();
    found.unwrap_or_else(|| panic!("{command}: {:?}", called.events))
}

/// Killed while it compares, a run goes on from there and begins nothing again.
pub fn goes_on_where_it_was(flavor: Flavor) {
    let Some(ground) = Ground::new(flavor, MANY) else { return };
    let proxy = Proxy::start(&ground.db.endpoints().primary).unwrap();
    let options = ["--workers", "1"];
    // The first range is compared and on record when the second one begins.
    let trap = proxy.trap_nth(snapshot(flavor), 1, Deed::Hold);
    let mut runner = ground.start(&proxy.url(ground.db.name()), &options);
    wait_sprung(&trap, &mut runner);
    runner.kill9().unwrap();
    trap.release();
    let dead = run_of(&ground, "status", "run");
    let saved = dead["rows_verified"].as_u64().unwrap();
    assert!(saved > 0 && saved < u64::from(MANY) && dead["verified"].is_null(), "{dead}");
    assert_eq!(dead["phase"], "verify");

    // Beside no runner at all it can be compared as well.
    let looked = ground.call("verify", &["--nice", "100%"]);
    assert!(looked.code() == 0, "{}", looked.complaint());
    assert_eq!(looked.event("compared").unwrap()["rows"], MANY);

    let called = ground.start(&ground.db.url(), &options).wait(LIMIT).unwrap();
    assert!(called.code() == 0, "{}", called.complaint());
    assert_eq!(called.event("run_resumed").unwrap()["phase"], "verify");
    let done = &called.ended.done;
    assert_eq!(done["verified"], "equal");
    assert_eq!(done["rows_verified"], MANY, "{saved} had been compared before the kill: {done}");
    eprintln!(
        "{}: {saved} of {MANY} rows were compared before the kill, none again",
        flavor.name()
    );
}

fn warned(called: &Called, code: &str) {
    let warning = called.findings();
    assert!(warning.iter().any(|finding| finding.starts_with(code)), "{warning:?}");
    assert!(called.ended.stderr.contains("warning: --verify"), "{}", called.ended.stderr);
}

/// A run that is proven by a sample says so at its beginning, meanwhile, at its end and for ever; and is
/// proven altogether where it is resumed so.
pub fn a_sample_is_told_as_such(flavor: Flavor) {
    let Some(ground) = Ground::new(flavor, MANY) else { return };
    let url = ground.db.url();
    let called = ground.start(&url, &["--verify", "sample"]).wait(LIMIT).unwrap();
    assert!(called.code() == 0, "{}", called.complaint());
    warned(&called, "verify-sample");
    let done = &called.ended.done;
    let rows = done["rows_verified"].as_u64().unwrap();
    assert_eq!(done["verified"], "sampled", "{done}");
    assert!((2_000..u64::from(MANY) / 4 * 3).contains(&rows), "{done}");
    let past = run_of(&ground, "history", "past_run");
    assert_eq!(
        (&past["summary"]["verified"], &past["summary"]["rows_verified"]),
        (&"sampled".into(), &rows.into())
    );
    assert_eq!(run_of(&ground, "status", "run")["verified"], "sampled");
    let text = cli_text(&["history", &url, "t"]);
    assert!(text.contains("not proven equal"), "{text}");

    let back = if flavor.is_postgres() {
        "ALTER TABLE t ALTER n TYPE int"
    } else {
        "ALTER TABLE t MODIFY n INT"
    };
    let start = |how: &str| {
        let words = [
            "run",
            &url,
            back,
            "--yes",
            "--strategy",
            "shadow",
            "--replica",
            "none",
            "--swap",
            "wait",
            "--verify",
            how,
        ];
        underpin_tests::runner::Runner::start(&words).unwrap()
    };
    let mut sampled = start("sample");
    assert!(sampled.wait_for(LIMIT, is_ready).unwrap().is_some(), "{}", sampled.story());
    // It is told at once and on record a moment later.
    let until = std::time::Instant::now() + LIMIT;
    while run_of(&ground, "status", "run")["verified"] != "sampled" {
        assert!(std::time::Instant::now() < until, "{}", run_of(&ground, "status", "run"));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let text = cli_text(&["status", &url, "t"]);
    assert!(text.contains("by a sample only, not proven equal"), "{text}");
    sampled.kill9().unwrap();
    let mut whole = start("full");
    assert!(whole.wait_for(LIMIT, is_ready).unwrap().is_some(), "{}", whole.story());
    ground.ask("swap", &[]);
    let called = whole.wait(LIMIT).unwrap();
    assert!(called.code() == 0, "{}", called.complaint());
    let done = &called.ended.done;
    assert_eq!((&done["verified"], &done["rows_verified"]), (&"equal".into(), &MANY.into()));

    let called = ground.start(&url, &["--verify", "off"]).wait(LIMIT).unwrap();
    assert!(called.code() == 0, "{}", called.complaint());
    warned(&called, "verify-off");
    assert_eq!(called.ended.done["verified"], "skipped");
    assert_eq!(called.ended.done["rows_verified"], 0);
}

/// What a person reads on standard output.
fn cli_text(words: &[&str]) -> String {
    let output = std::process::Command::new(cli::program().unwrap()).args(words).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}
