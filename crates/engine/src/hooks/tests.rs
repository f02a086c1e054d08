//! Hooks with real commands.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;

use super::*;

const PHASE_SWAP: &str = "swap";

/// A folder with a script in it, and what it has written.
struct Script {
    folder: tempfile::TempDir,
}

impl Script {
    /// `body` is run by sh; `$OUT` is the folder.
    fn new(body: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("OUT={}\n{body}\n", folder.path().display());
        fs::write(folder.path().join("hook.sh"), text).unwrap();
        Self { folder }
    }

    /// Each message goes into a file of its own, named by a number and its event.
    fn recorder() -> Self {
        Self::new(
            "n=$(ls $OUT | wc -l); f=$OUT/$(printf %03d $n)-$UNDERPIN_EVENT; cat > $f.part; \
             env | grep ^UNDERPIN_ | sort >> $f.part; mv $f.part $f",
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn options(&self) -> HookOptions {
        let command = format!("sh '{}'", self.path("hook.sh").display());
        HookOptions {
            command: HookCommand::read(&command).unwrap(),
            timeout_ms: 10_000,
            veto: false,
        }
    }

    /// Events that were told, in order.
    fn told(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "hook.sh" && !name.ends_with(".part"))
            .collect();
        names.sort();
        names.iter().map(|name| name.split_once('-').unwrap().1.to_owned()).collect()
    }
}

fn about() -> About {
    About {
        run_id: "r1".to_owned(),
        table: "shop.orders".to_owned(),
        statement: "ALTER TABLE orders ADD note TEXT".to_owned(),
    }
}

fn pace() -> Pace {
    Pace { pause_told_after: Duration::from_millis(700), ask_every: Duration::from_millis(300) }
}

/// Hooks at a quick pace, the reporter they listen to, and the failures they report.
fn hooks(options: HookOptions) -> (Hooks, Reporter, Arc<Mutex<Vec<String>>>) {
    let failures: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&failures);
    let reporter = Reporter::new(move |report| {
        if let Report::HookFailed { hook, why, .. } = report {
            kept.lock().unwrap().push(format!("{hook}: {why}"));
        }
    });
    let hooks = Hooks::start_at(pace(), Some(options), about(), &reporter);
    let attached = hooks.attach(&reporter);
    (hooks, attached, failures)
}

fn phase(reporter: &Reporter, name: &str) {
    reporter.tell(|at_ms| Report::Phase { at_ms, phase: name.to_owned() });
}

fn swapped(reporter: &Reporter) {
    reporter.tell(|at_ms| Report::Swap { at_ms, stall_ms: 12, drained: 3, attempts: 1 });
}

async fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..500 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} did not come to be");
}

fn is_alive(pid: &str) -> bool {
    // A process that has ended and is not waited for is dead to us.
    let stat = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_command_is_words_and_no_shell_line() {
    let words = |text: &str| HookCommand::read(text).map(|command| command.words);
    assert_eq!(words("tell-us").unwrap(), ["tell-us"]);
    assert_eq!(
        words(r#"/bin/tell --to 'the dba' "a b" $HOME | rm *"#).unwrap(),
        ["/bin/tell", "--to", "the dba", "a b", "$HOME", "|", "rm", "*"]
    );
    for text in ["", "  ", "''", "tell 'us", "tell \\"] {
        assert!(words(text).is_err(), "{text:?}");
    }
}

#[tokio::test]
async fn everything_is_told_in_order_with_what_is_known() {
    let script = Script::recorder();
    let (hooks, reporter, failures) = hooks(script.options());
    reporter.tell(|at_ms| Report::RunResumed {
        at_ms,
        run_id: "r1".into(),
        table: "shop.orders".into(),
        phase: "copy".into(),
        rows_copied: 7,
    });
    phase(&reporter, PHASE_SWAP);
    wait_until("ready", || script.told().last().is_some_and(|last| last == "ready")).await;
    swapped(&reporter);
    phase(&reporter, "finish");
    assert_eq!(*hooks.veto().borrow(), None, "nothing is held back where that is not wanted");
    hooks.end(&Ok(Outcome::Interrupted)).await;

    assert_eq!(script.told(), ["started", "ready", "swapped", "stopped"]);
    assert!(failures.lock().unwrap().is_empty(), "{failures:?}");
    let text = fs::read_to_string(script.path("003-swapped")).unwrap();
    let (message, environment) = text.split_once('\n').unwrap();
    let message: Value = serde_json::from_str(message).unwrap();
    assert_eq!(message["version"], 1);
    assert_eq!(message["event"], "swapped");
    assert_eq!(message["statement"], "ALTER TABLE orders ADD note TEXT");
    assert_eq!(message["details"], json!({"stall_ms": 12, "drained": 3, "attempts": 1}));
    let at: jiff::Timestamp = message["at"].as_str().unwrap().parse().unwrap();
    assert!((jiff::Timestamp::now() - at).get_seconds() < 60);
    for line in ["UNDERPIN_EVENT=swapped", "UNDERPIN_RUN_ID=r1", "UNDERPIN_TABLE=shop.orders"] {
        assert!(environment.lines().any(|known| known == line), "{line}: {environment}");
    }
    let text = fs::read_to_string(script.path("001-started")).unwrap();
    assert!(text.contains(r#""goes_on":true"#) && text.contains(r#""rows_copied":7"#), "{text}");
    let text = fs::read_to_string(script.path("004-stopped")).unwrap();
    assert!(text.contains(r#""exit_code":130"#), "{text}");
}

#[tokio::test]
async fn an_end_without_the_goal_is_told_as_a_failure() {
    let script = Script::recorder();
    let (hooks, _reporter, _) = hooks(script.options());
    hooks.end(&Err(EngineError::NoRun { table: "shop.orders".into() })).await;
    let text = fs::read_to_string(script.path("001-failed")).unwrap();
    let message: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(message["details"], json!({"exit_code": 3, "kind": "no_run"}));
    assert!(message["reason"].as_str().unwrap().contains("no unfinished run"));
    assert!(text.contains("UNDERPIN_REASON=shop.orders has no unfinished run"), "{text}");
}

#[test]
fn each_way_to_end_has_its_name_and_reason() {
    for (outcome, name, exit_code, said) in [
        (Outcome::Altered { tries: 2, took_ms: 7 }, "finished", 0, ""),
        (Outcome::Interrupted, "stopped", 130, "the same command goes on"),
        (Outcome::Aborted { why: String::new() }, "stopped", 1, "on request"),
        (Outcome::Aborted { why: "running is 90".into() }, "stopped", 1, "running is 90"),
    ] {
        let result = Ok(outcome);
        let (reason, details) = ending(&result);
        assert_eq!(kind_of(&result).name(), name, "{result:?}");
        assert_eq!(details["exit_code"], exit_code, "{result:?}");
        assert!(reason.contains(said) && reason.is_empty() == said.is_empty(), "{reason}");
    }
}

#[tokio::test]
async fn a_pause_is_told_only_where_it_lasts() {
    let script = Script::recorder();
    let (hooks, reporter, _) = hooks(script.options());
    let pause = |reason: &str| {
        reporter.tell(|at_ms| Report::Paused {
            at_ms,
            reason: reason.to_owned(),
            kind: "lag".to_owned(),
        });
    };
    let resume = || {
        reporter.tell(|at_ms| Report::Resumed { at_ms, paused_ms: 1, kind: "lag".to_owned() });
    };
    // Short ones, and their ends, are nothing to tell.
    for _ in 0..20 {
        pause("replica db2 lags 2.1 s (limit 2 s)");
        resume();
    }
    for _ in 0..3 {
        pause("replica db2 lags 2.1 s (limit 2 s)");
        tokio::time::sleep(Duration::from_millis(50)).await;
        resume();
    }
    tokio::time::sleep(pace().pause_told_after * 2).await;
    assert!(script.told().is_empty(), "{:?}", script.told());
    // A zero byte, from a server's words, could not stand in the environment.
    pause("replica db2 lags 3.1 s\0 (limit 2 s)");
    wait_until("throttled", || !script.told().is_empty()).await;
    resume();
    wait_until("resumed", || script.told().len() == 2).await;
    assert_eq!(script.told(), ["throttled", "resumed"]);
    let text = fs::read_to_string(script.path("001-throttled")).unwrap();
    assert!(text.contains("UNDERPIN_REASON=replica db2 lags 3.1 s (limit 2 s)"), "{text}");
    hooks.end(&Ok(Outcome::Interrupted)).await;
}

#[tokio::test]
async fn one_that_takes_too_long_is_ended_with_all_that_it_has_started() {
    // It does not want to end, and neither does what it has started.
    let script = Script::new(
        "trap '' TERM; (trap '' TERM; sleep 60) & echo $! > $OUT/child.part; \
         echo $$ > $OUT/leader; mv $OUT/child.part $OUT/child; sleep 60; sleep 60",
    );
    let options = HookOptions { timeout_ms: 500, ..script.options() };
    let (hooks, reporter, failures) = hooks(options);
    let begun = Instant::now();
    swapped(&reporter);
    wait_until("the hook", || script.path("child").exists()).await;
    let pids = ["leader", "child"].map(|name| fs::read_to_string(script.path(name)).unwrap());
    assert!(pids.iter().all(|pid| is_alive(pid)), "{pids:?}");
    wait_until("the report", || !failures.lock().unwrap().is_empty()).await;
    assert_eq!(*failures.lock().unwrap(), ["swapped: took longer than 500 ms and was ended"]);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    wait_until("their end", || !pids.iter().any(|pid| is_alive(pid))).await;
    drop(hooks);
}

#[tokio::test]
async fn failures_are_reported_with_what_was_said() {
    let script = Script::new(
        "case $UNDERPIN_EVENT in swapped) printf '\\n\\033[31mno such channel\\n' >&2; exit 3;; \
         stopped) kill -9 $$;; esac",
    );
    let (hooks, reporter, failures) = hooks(script.options());
    swapped(&reporter);
    hooks.end(&Ok(Outcome::Interrupted)).await;
    let failures = failures.lock().unwrap().clone();
    assert_eq!(failures[0], "swapped: ended with exit code 3: [31mno such channel");
    assert!(failures[1].starts_with("stopped: was killed"), "{failures:?}");
    assert_eq!(failures.len(), 2);
}

#[tokio::test]
async fn one_that_does_not_exist_is_reported() {
    let command = HookCommand::read("/nowhere/to-be-found --loud").unwrap();
    let options = HookOptions { command, timeout_ms: 1000, veto: false };
    let (hooks, reporter, failures) = hooks(options);
    swapped(&reporter);
    wait_until("the report", || !failures.lock().unwrap().is_empty()).await;
    let why = failures.lock().unwrap()[0].clone();
    assert!(why.contains("`/nowhere/to-be-found --loud` could not be started"), "{why}");
    drop(hooks);
}

#[tokio::test]
async fn one_that_leaves_something_running_or_says_a_lot_is_no_trouble() {
    // What it leaves running keeps its outputs and its input open.
    let script = Script::new(
        "head -c 3000000 /dev/zero || exit 4; (sleep 20; true) & echo $! > $OUT/1-left; exit 0",
    );
    let (hooks, reporter, failures) = hooks(script.options());
    let begun = Instant::now();
    swapped(&reporter);
    wait_until("the hook", || !script.told().is_empty()).await;
    let left = fs::read_to_string(script.path("1-left")).unwrap();
    hooks.end(&Ok(Outcome::Interrupted)).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(failures.lock().unwrap().is_empty(), "{failures:?}");
    assert!(is_alive(&left), "it ended by itself: what it left is its own business");
    let _ = std::process::Command::new("kill").arg(left.trim()).status();
}

#[tokio::test]
async fn a_slow_hook_holds_nobody_up_and_what_it_misses_is_counted() {
    let script = Script::new("sleep 0.5");
    let (hooks, reporter, failures) = hooks(script.options());
    let begun = Instant::now();
    for _ in 0..500 {
        swapped(&reporter);
    }
    assert!(begun.elapsed() < Duration::from_millis(400), "{:?}", begun.elapsed());
    wait_until("the report", || !failures.lock().unwrap().is_empty()).await;
    let why = failures.lock().unwrap()[0].clone();
    // One may have left the queue meanwhile.
    let missed = 500 - QUEUE_MAX;
    let fits = |missed: usize| {
        why == format!("events: {missed} events were not told: the command is too slow for them")
    };
    assert!(fits(missed) || fits(missed - 1), "{why}");
    drop(hooks);
}

#[tokio::test]
async fn the_end_is_told_even_behind_many_pauses() {
    let script = Script::recorder();
    let (hooks, reporter, _) = hooks(script.options());
    for _ in 0..QUEUE_MAX + 5 {
        reporter.tell(|at_ms| Report::Paused {
            at_ms,
            reason: "r".to_owned(),
            kind: "lag".to_owned(),
        });
    }
    hooks.end(&Ok(Outcome::Interrupted)).await;
    assert_eq!(script.told(), ["stopped"]);
}

#[tokio::test]
async fn a_veto_holds_the_swap_back_until_the_hook_agrees() {
    // It agrees once the file is there.
    let script = Script::new(
        "test $UNDERPIN_EVENT = ready || exit 0; echo $UNDERPIN_ASKED > $OUT/1-asked; \
         test -e $OUT/2-agreed || { echo 'not before the backup'; exit 1; }",
    );
    let options = HookOptions { veto: true, ..script.options() };
    let (hooks, reporter, failures) = hooks(options);
    let veto = hooks.veto();
    let why = || veto.borrow().clone().unwrap_or_default();
    assert_eq!(why(), NOT_ASKED, "before it is asked the gate is shut");
    phase(&reporter, PHASE_SWAP);
    wait_until("the veto", || why() == "the hook holds it back: not before the backup").await;
    // It is asked again by itself.
    wait_until("a second question", || {
        fs::read_to_string(script.path("1-asked")).is_ok_and(|asked| asked.trim() == "2")
    })
    .await;
    fs::write(script.path("2-agreed"), "").unwrap();
    wait_until("agreement", || veto.borrow().is_none()).await;
    // The run goes back to the log: what was said counts no longer, and is asked anew.
    phase(&reporter, "catch_up");
    wait_until("the gate", || why() == NOT_ASKED).await;
    phase(&reporter, PHASE_SWAP);
    wait_until("agreement", || veto.borrow().is_none()).await;
    // Also while the swap is tried again and again the newest answer counts.
    fs::remove_file(script.path("2-agreed")).unwrap();
    wait_until("a veto again", || veto.borrow().is_some()).await;
    assert!(failures.lock().unwrap().is_empty(), "an answer is no failure: {failures:?}");
    drop(hooks);
}

#[tokio::test]
async fn a_hook_that_fails_to_answer_holds_the_swap_back() {
    let script = Script::new("sleep 60");
    let options = HookOptions { veto: true, timeout_ms: 300, ..script.options() };
    let (hooks, reporter, failures) = hooks(options);
    let veto = hooks.veto();
    phase(&reporter, PHASE_SWAP);
    wait_until("the report", || !failures.lock().unwrap().is_empty()).await;
    let why = veto.borrow().clone().unwrap();
    assert_eq!(why, "the hook holds it back: took longer than 300 ms and was ended");
    drop(hooks);
}

#[tokio::test]
async fn nothing_is_done_where_nothing_is_wanted() {
    let hooks = Hooks::start(None, about(), &Reporter::silent());
    assert_eq!(*hooks.veto().borrow(), None);
    hooks.end(&Ok(Outcome::Interrupted)).await;
}
