//! What was killed: a runner, of which `status` says so, since when, and how to go on; and each session of
//! a run, which comes back.

use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use underpin_tests::cli;
use underpin_tests::runner::Runner;
use underpin_tests::servers::{Flavor, TestDb, sql};

use super::{LIMIT, Session, change, is, make_table};

/// Standard output of `underpin status URL`, as a person sees it.
fn status(url: &str) -> String {
    let output = Command::new(cli::program().unwrap()).args(["status", url]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Ids of the sessions of the run: all but this one's, and those that were there before.
async fn sessions(session: &mut Session, flavor: Flavor) -> Result<Vec<String>> {
    let query = if flavor.is_postgres() {
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
         AND backend_type = 'client backend'"
    } else {
        "SELECT ID FROM information_schema.PROCESSLIST WHERE ID > CONNECTION_ID() AND USER NOT IN \
         ('system user', 'event_scheduler') AND COMMAND NOT LIKE 'Binlog Dump%'"
    };
    session.rows(query).await
}

/// Each session of a run is killed at the server, one after the other: the run connects anew, waits for
/// nothing that it has lost, and ends well.
pub fn no_session_is_missed(flavor: Flavor) {
    let Some(db) = TestDb::new(flavor) else { return };
    let url = db.url();
    make_table(flavor, &url, 24_000);
    let mut words = vec!["run", &url, change(flavor), "--strategy", "shadow", "--replica", "none"];
    words.extend(["--yes", "--rate", "1500", "--chunk-time", "100ms"]);
    let (at, (told, asked)) = (url.clone(), std::sync::mpsc::channel());
    let (go, may_go) = std::sync::mpsc::channel::<()>();
    // Its session is older than those of the run.
    let killer = thread::spawn(move || {
        sql::block_on(async move {
            let mut session = Session::open(&at).await?;
            told.send(())?;
            may_go.recv()?;
            let mut killed = 0;
            for id in sessions(&mut session, flavor).await? {
                let kill = if flavor.is_postgres() {
                    format!("SELECT pg_terminate_backend({id})")
                } else {
                    format!("KILL {id}")
                };
                // One that has gone by itself since is none to kill.
                killed += usize::from(session.run(&kill).await.is_ok());
                tokio::time::sleep(Duration::from_millis(900)).await;
            }
            Ok(killed)
        })
    });
    asked.recv().unwrap();
    let mut runner = Runner::start(&words).unwrap();
    runner.wait_for(LIMIT, |event| event["rows_copied"].as_u64() > Some(0)).unwrap().unwrap();
    go.send(()).unwrap();
    let killed = killer.join().unwrap().unwrap();
    assert!(killed >= 4, "control, two probes and a worker at least: {killed}");
    assert!(runner.find(|event| is(event, "done")).is_none(), "too late: {}", runner.story());
    // the machine may be busy with everything that connects anew
    let patient = match flavor.is_postgres() {
        true => format!("{url}?connect_timeout=60"),
        false => format!("{url}?connect-timeout-ms=60000"),
    };
    let called = cli::call(&["set", &patient, "t", "rate=off"]).unwrap();
    assert!(called.code() == 0, "{}", called.complaint());
    let done = runner.wait_for(LIMIT, |event| is(event, "done")).unwrap();
    assert!(done.is_some(), "after {killed} sessions: {}", runner.story());
    assert_eq!(runner.wait(LIMIT).unwrap().code(), 0);
}

/// Kills a run without warning, asks for it, and does as it is told.
pub fn is_told_as_such(flavor: Flavor) {
    let Some(db) = TestDb::new(flavor) else { return };
    let url = db.url();
    make_table(flavor, &url, 24_000);
    let mut words = vec!["run", &url, change(flavor), "--strategy", "shadow", "--replica", "none"];
    words.extend(["--yes", "--rate", "8000", "--chunk-time", "100ms"]);
    let mut runner = Runner::start(&words).unwrap();
    runner.wait_for(LIMIT, |event| event["rows_copied"].as_u64() > Some(8000)).unwrap().unwrap();
    let alive = status(&url);
    assert!(alive.contains("running") && !alive.contains("dead"), "{alive}");
    runner.kill9().unwrap();
    thread::sleep(Duration::from_secs(3));

    let json = cli::call(&["status", &url]).unwrap();
    let run = json.event("run").unwrap();
    assert_eq!((&run["standing"], &run["phase"]), (&"unattended".into(), &"copy".into()), "{run}");
    let silent_s = run["silent_s"].as_u64().unwrap();
    assert!((2..=8).contains(&silent_s), "its last word was three seconds ago: {run}");
    assert!(run["updated_at"].as_str().unwrap() > run["created_at"].as_str().unwrap(), "{run}");
    assert!(run["next"].as_str().unwrap().contains("underpin run"), "{run}");
    let text = status(&url);
    eprintln!("{}: silent for {silent_s} s\n{text}", flavor.name());
    assert!(text.contains("dead since"), "{text}");

    // An order to nobody is no order that was carried out.
    let paused = cli::call(&["pause", &url, "t"]).unwrap();
    assert_ne!(paused.code(), 0);
    let said = paused.complaint();
    assert!(said.contains("no program works on"), "{said}");

    // The line that is shown is a line for the shell.
    let line = text.lines().find_map(|line| line.trim().strip_prefix("go on with")).unwrap();
    let folder = cli::program().unwrap().parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let script = format!("{} --yes --output json", line.trim());
    let output = Command::new("sh").args(["-c", &script]).env("PATH", path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{script}: {said} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let events: Vec<serde_json::Value> =
        said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let resumed = events.iter().find(|event| is(event, "run_resumed")).unwrap();
    assert!(resumed["rows_copied"].as_u64() > Some(0), "{resumed}");
    assert_eq!(events.last().unwrap()["rows_copied"], 24_000);
    assert!(!status(&url).contains(&format!("{}.t", db.name())), "{}", status(&url));
}
