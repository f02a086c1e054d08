//! What may hold a run up on request: a window of the calendar, a deadline, a flag file, a hook's veto.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use underpin_tests::busy;
use underpin_tests::cli;
use underpin_tests::runner::Runner;
use underpin_tests::servers::{Flavor, TestDb, sql};

const LIMIT: Duration = Duration::from_secs(180);

/// Records each event as a file; agrees to the swap once there is a file `agreed`.
const HOOK: &str = r#"
n=$(ls "$OUT/told" | wc -l)
cat > "$OUT/part"; mv "$OUT/part" "$OUT/told/$(printf %03d "$n")-$UNDERPIN_EVENT"
test "$UNDERPIN_EVENT" != ready || test -e "$OUT/agreed" || { echo "not before the backup"; exit 1; }
"#;

struct Ground {
    db: TestDb,
    folder: tempfile::TempDir,
}

impl Ground {
    fn new(flavor: Flavor) -> Option<Self> {
        let db = TestDb::new(flavor)?;
        let rows = (1..=500).map(|id| format!("({id}, 'x')")).collect::<Vec<_>>().join(", ");
        let statements = vec![
            "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(60))".to_owned(),
            format!("INSERT INTO t VALUES {rows}"),
        ];
        sql::execute(&db.url(), statements).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let hook = format!("OUT='{}'{HOOK}", folder.path().display());
        fs::write(folder.path().join("hook.sh"), hook).unwrap();
        fs::create_dir(folder.path().join("told")).unwrap();
        Some(Self { db, folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts or goes on with a change that is copied.
    fn run(&self, words: &[&str]) -> Runner {
        let change = if self.db.endpoints().flavor.is_postgres() {
            "ALTER TABLE t ALTER v TYPE varchar(100)"
        } else {
            "ALTER TABLE t MODIFY v VARCHAR(100)"
        };
        self.start(change, &[&["--strategy", "shadow"], words].concat())
    }

    /// A change that the server makes by itself.
    fn run_native(&self, words: &[&str]) -> Runner {
        self.start("ALTER TABLE t ADD n INT", words)
    }

    fn start(&self, change: &str, words: &[&str]) -> Runner {
        let url = self.db.url();
        let fixed = ["run", &url, change, "--yes", "--replica", "none", "--compare-after", "0s"];
        Runner::start(&[&fixed, words].concat()).unwrap()
    }

    fn told(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path("told"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names.iter().map(|name| name.split_once('-').unwrap().1.to_owned()).collect()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn pause_because(event: &Value, reason: &str) -> bool {
    event["event"] == "paused" && event["reason"].as_str().is_some_and(|why| why.contains(reason))
}

fn wait_for_pause(runner: &mut Runner, reason: &str) {
    let found = runner.wait_for(LIMIT, |event| pause_because(event, reason)).unwrap();
    assert!(found.is_some(), "no pause because of {reason}: {}", runner.story());
}

/// Interrupts it and waits for its end.
fn interrupt(runner: Runner) {
    runner.signal("INT").unwrap();
    let called = runner.wait(LIMIT).unwrap();
    assert_eq!(called.code(), 130, "{called:?}");
}

/// A day of the week on which no window is open now, whatever happens at midnight.
fn another_day() -> &'static str {
    let days = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 86_400;
    // 1 January 1970 was a Thursday.
    let names = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];
    names[usize::try_from((days + 3) % 7).unwrap()]
}

fn copies_only_in_its_window(ground: &Ground) {
    let window = format!("{} UTC", another_day());
    let mut runner = ground.run(&["--copy-window", &window]);
    wait_for_pause(&mut runner, "outside its window until");
    thread::sleep(Duration::from_secs(1));
    let copied = |event: &Value| event["rows_copied"].as_u64().is_some_and(|rows| rows > 0);
    assert!(runner.find(copied).is_none(), "{}", runner.story());
    interrupt(runner);
}

fn stops_at_its_deadline(ground: &Ground, flag: &str) {
    let begun = Instant::now();
    let mut runner = ground.run(&["--signal-file", flag, "--deadline", "4s"]);
    wait_for_pause(&mut runner, "backup until noon");
    let called = runner.wait(LIMIT).unwrap();
    assert_eq!(called.code(), 130, "{called:?}");
    let order = called.event("ordered").unwrap();
    assert_eq!(order["command"], "stop", "{order}");
    assert!(order["by"].as_str().unwrap().starts_with("the deadline 20"), "{order}");
    assert!(begun.elapsed() >= Duration::from_secs(4), "{:?}", begun.elapsed());
}

/// A load beyond all bounds ends the run, with nothing left, even while it is paused.
fn is_ended_by_a_critical_load(ground: &Ground, flag: &str) {
    let words = ["--signal-file", flag, "--signal-query", "heat=SELECT 7", "--critical-load"];
    let mut cool = ground.run(&[&words[..], &["heat=8"]].concat());
    wait_for_pause(&mut cool, "backup until noon");
    thread::sleep(Duration::from_secs(3));
    assert!(!cool.has_ended().unwrap(), "{}", cool.story());
    interrupt(cool);
    let called = ground.run(&[&words[..], &["heat=6"]].concat()).wait(LIMIT).unwrap();
    assert_eq!(called.code(), 1, "{called:?}");
    assert_eq!(called.event("stopped").unwrap()["ending"], "aborted", "{called:?}");
    assert!(called.complaint().contains("heat"), "{}", called.complaint());
    let list = cli::call(&["list", &ground.db.url()]).unwrap();
    assert_eq!(list.event("run").unwrap()["standing"], "aborted", "{list:?}");
}

fn heeds_a_flag_and_then_a_veto(ground: &Ground, flag: &str, hook: &[&str]) {
    let mut runner = ground.run(&[&["--signal-file", flag], hook].concat());
    wait_for_pause(&mut runner, "backup until noon");
    // Long enough to be told.
    thread::sleep(Duration::from_millis(3500));
    fs::remove_file(flag).unwrap();
    let removed = Instant::now();
    runner.wait_for(LIMIT, |event| event["event"] == "resumed").unwrap().unwrap();
    let took = removed.elapsed();
    eprintln!("{}: goes on {took:?} after its flag", ground.db.endpoints().flavor.name());
    assert!(took < busy::allows(removed, Duration::from_secs(3)), "{took:?}");
    wait_for_pause(&mut runner, "the hook holds it back: not before the backup");
    thread::sleep(Duration::from_secs(1));
    assert!(runner.find(|event| event["event"] == "swap").is_none(), "{}", runner.story());
    interrupt(runner);
    let told = ground.told();
    assert_eq!(told.first().unwrap(), "started", "{told:?}");
    assert_eq!(told.last().unwrap(), "stopped", "{told:?}");
    let place = |name: &str| told.iter().position(|event| event == name);
    assert!(place("throttled").is_some() && place("throttled") < place("resumed"), "{told:?}");
    assert!(place("resumed") < place("ready") && place("swapped").is_none(), "{told:?}");
}

fn swaps_once_the_hook_agrees(ground: &Ground, hook: &[&str]) {
    fs::write(ground.path("agreed"), "").unwrap();
    let before = ground.told().len();
    let runner = ground.run(hook);
    let called = runner.wait(LIMIT).unwrap();
    assert!(called.code() == 0, "{called:?}");
    let told = ground.told().split_off(before);
    assert_eq!(told, ["started", "ready", "swapped", "finished"]);
}

/// Nothing is copied, but the change is as much one as a swap.
fn a_change_by_the_server_waits_too(ground: &Ground, hook: &[&str]) {
    let window = format!("{} UTC", another_day());
    let mut runner = ground.run_native(&["--swap-window", &window]);
    wait_for_pause(&mut runner, "outside its window until");
    interrupt(runner);
    let called = ground.run_native(&["--swap", "wait"]).wait(LIMIT).unwrap();
    assert_eq!(called.code(), 3, "{called:?}");
    let before = ground.told().len();
    fs::remove_file(ground.path("agreed")).unwrap();
    let mut runner = ground.run_native(hook);
    wait_for_pause(&mut runner, "the hook has not been asked yet");
    thread::sleep(Duration::from_secs(1));
    interrupt(runner);
    fs::write(ground.path("agreed"), "").unwrap();
    let called = ground.run_native(hook).wait(LIMIT).unwrap();
    assert!(called.code() == 0, "{called:?}");
    let told = ground.told().split_off(before);
    assert_eq!(told, ["ready", "stopped", "ready", "finished"]);
}

#[test]
fn a_run_keeps_its_hours_and_heeds_a_flag_and_a_hook() {
    let flavors = [Flavor::MySql97, Flavor::MariaDbDistro, Flavor::PostgresDistro];
    thread::scope(|scope| {
        for flavor in flavors {
            scope.spawn(move || {
                let Some(ground) = Ground::new(flavor) else { return };
                let (flag, command) = (ground.path("stop"), ground.path("hook.sh"));
                fs::write(&flag, "\nbackup until noon\n").unwrap();
                let command = format!("sh '{}'", command.display());
                let hook = ["--on-event", &command, "--hook-veto"];
                copies_only_in_its_window(&ground);
                stops_at_its_deadline(&ground, text(&flag));
                is_ended_by_a_critical_load(&ground, text(&flag));
                heeds_a_flag_and_then_a_veto(&ground, text(&flag), &hook);
                swaps_once_the_hook_agrees(&ground, &hook);
                a_change_by_the_server_waits_too(&ground, &hook);
            });
        }
    });
}
