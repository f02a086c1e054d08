//! Statements, tables and ids.

use clap::Parser as _;
use underpin_core::machine::Settings;
use underpin_core::proof::Verification;
use underpin_core::signal::SwapWhen;

use super::*;
use crate::args::{Cli, Command};
use crate::exit::ExitStatus;

const ALTER: &str = "ALTER TABLE orders ADD note TEXT";

fn run_with(line: &[&str], can_ask: bool, input: &str) -> anyhow::Result<RunOrder> {
    let cli = Cli::try_parse_from(["underpin", "run", "mysql://a@db1/shop"].iter().chain(line))?;
    let Command::Run(args) = &cli.command else { unreachable!() };
    run(args, &cli.global, can_ask, &mut input.as_bytes())
}

#[test]
fn the_statement_comes_from_three_places() {
    let file = std::env::temp_dir().join(format!("underpin-cli-{}.sql", std::process::id()));
    std::fs::write(&file, format!("\u{feff}{ALTER};\n")).unwrap();
    let path = file.to_str().unwrap();
    for (line, text) in [
        (vec!["--yes", ALTER], ALTER.to_owned()),
        (vec!["--yes", "-"], ALTER.to_owned()),
        (vec!["--yes", "--file", "-"], ALTER.to_owned()),
        (vec!["--yes", "--file", path], format!("{ALTER};")),
    ] {
        let order = run_with(&line, false, &format!("{ALTER}\n")).unwrap();
        assert_eq!(order.change.request.statement, text, "{line:?}");
        assert_eq!(order.change.request.alter.table.to_string(), "orders");
        assert_eq!(order.change.request.default_schema.as_deref(), Some("shop"));
    }
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn what_is_wrong_with_a_statement_is_usage() {
    for (line, input, word) in [
        (vec!["--yes", "-"], "  \n", "standard input holds no statement"),
        (vec!["--yes", "--file", "/nowhere/x.sql"], "", "/nowhere/x.sql cannot be opened"),
        (vec!["--yes", "DROP TABLE orders"], "", "ALTER TABLE"),
        (
            vec!["--yes", "ALTER TABLE a ADD b INT; DROP TABLE a"],
            "",
            "a second statement at line 1",
        ),
    ] {
        let error = run_with(&line, false, input).unwrap_err();
        assert_eq!(ExitStatus::of(&error), ExitStatus::Usage, "{error:#}");
        assert!(format!("{error:#} {error:?}").contains(word), "{error:?}");
    }
    let long = "x".repeat(1024 * 1024 + 1);
    let error = run_with(&["--yes", "-"], false, &long).unwrap_err();
    assert!(error.to_string().contains("larger than 1 MiB"), "{error}");
}

#[test]
fn without_a_terminal_yes_must_be_said() {
    let error = run_with(&[ALTER], false, "").unwrap_err();
    assert_eq!(ExitStatus::of(&error), ExitStatus::Usage);
    let problem = error.downcast_ref::<Problem>().unwrap();
    assert!(problem.next.contains("--yes"), "{problem:?}");
    assert!(!run_with(&[ALTER], true, "").unwrap().yes);
    assert!(run_with(&[ALTER, "--yes"], false, "").unwrap().yes);
}

#[test]
fn limits_reach_the_run() {
    let line = [
        ALTER,
        "--yes",
        "--workers",
        "7",
        "--chunk-time",
        "150ms",
        "--max-lag",
        "5s",
        "--swap-budget",
        "200ms",
        "--lock-patience",
        "1h",
        "--verify",
        "off",
        "--keep-retired",
        "--strategy",
        "shadow",
        "--indexes",
        "after",
    ];
    let order = run_with(&line, false, "").unwrap();
    let settings = &order.options.settings;
    assert_eq!((settings.workers, settings.chunk_ms_target), (7, 150));
    assert_eq!((settings.lag_ms_max, settings.swap_budget_ms), (5_000, 200));
    assert_eq!((settings.lock_patience_ms, settings.verify), (3_600_000, Verification::Off));
    assert!(order.options.keep_retired);
    assert!(order.change.request.force_shadow);
    assert_eq!(order.change.request.indexes, IndexTiming::After);
}

#[test]
fn what_only_one_family_can_do_is_refused_for_the_other() {
    let at = |url: &str, more: &[&str]| {
        let line = ["underpin", "run", url, ALTER, "--yes"];
        let cli = Cli::try_parse_from(line.iter().chain(more)).unwrap();
        let Command::Run(args) = &cli.command else { unreachable!() };
        run(args, &cli.global, false, &mut "".as_bytes())
    };
    let (mysql, postgres) = ("mysql://a@db1/shop", "postgres://a@db1/shop");
    for more in [["--capture", "statement"], ["--lock-timeout", "1500ms"]] {
        assert_eq!(ExitStatus::of(&at(mysql, &more).unwrap_err()), ExitStatus::Usage, "{more:?}");
        at(postgres, &more).unwrap();
    }
    let capture = |order: RunOrder| order.change.request.capture;
    assert_eq!(
        capture(at(postgres, &["--capture", "statement"]).unwrap()),
        plan::Capture::Statement
    );
    assert_eq!(capture(at(postgres, &[]).unwrap()), plan::Capture::Row);
}

#[test]
fn the_defaults_are_the_machines_own() {
    let order = run_with(&[ALTER, "--yes"], false, "").unwrap();
    let (ours, machine) = (&order.options.settings, Settings::default());
    assert_eq!(ours.workers, machine.workers);
    let line = ["underpin", "run", "postgres://a@db1/shop", ALTER, "--yes"];
    let cli = Cli::try_parse_from(line).unwrap();
    let Command::Run(args) = &cli.command else { unreachable!() };
    let postgres = run(args, &cli.global, false, &mut "".as_bytes()).unwrap();
    assert_eq!(postgres.options.settings.workers, 2);
    assert_eq!(ours.chunk_ms_target, machine.chunk_ms_target);
    assert_eq!(ours.lag_ms_max, machine.lag_ms_max);
    assert_eq!(ours.swap_budget_ms, machine.swap_budget_ms);
    assert_eq!(ours.lock_patience_ms, machine.lock_patience_ms);
    assert!(
        ours.verify == Verification::Full
            && !order.options.keep_retired
            && !order.change.request.force_shadow
    );
}

#[test]
fn tables_are_read_as_people_write_them() {
    let table = |schema: Option<&str>, name: &str| TableArg {
        schema: schema.map(str::to_owned),
        name: name.to_owned(),
    };
    for (text, expected) in [
        ("orders", table(None, "orders")),
        ("my-orders", table(None, "my-orders")),
        ("shop.orders", table(Some("shop"), "orders")),
        ("`a.b`.`c``d`", table(Some("a.b"), "c`d")),
        ("shop.`x.y`", table(Some("shop"), "x.y")),
    ] {
        assert_eq!(TableArg::parse(text), Ok(expected), "{text}");
    }
    for text in ["", ".", "a.", ".a", "a.b.c", "a.b.", "`a", "``", "`a`b", "a`b"] {
        let problem = TableArg::parse(text).unwrap_err();
        assert_eq!(problem.status, ExitStatus::Usage, "{text}");
    }
}

#[test]
fn a_listed_run_is_found_by_its_table() {
    let bare = TableArg::parse("orders").unwrap();
    assert!(bare.is("shop.orders", None));
    assert!(bare.is("shop.orders", Some("shop")));
    assert!(!bare.is("shop.orders", Some("test")));
    assert!(!bare.is("shop.orders2", None));
    assert!(TableArg::parse("shop.orders").unwrap().is("shop.orders", Some("test")));
}

#[test]
fn ids_are_short_plain_and_differ() {
    let ids: std::collections::BTreeSet<String> = (0..50).map(|_| new_run_id()).collect();
    assert!(ids.len() > 45, "{ids:?}");
    for id in ids {
        assert!(id.len() <= 12, "{id}");
        assert!(id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{id}");
    }
    assert_eq!((base36(0), base36(35), base36(36)), ("0".into(), "z".into(), "10".into()));
}

#[test]
fn limits_rates_and_shares_reach_the_run() {
    let line = [
        ALTER,
        "--yes",
        "--max-load",
        "running=50",
        "--max-load",
        "queue=1000",
        "--critical-load",
        "running=200",
        "--critical-load",
        "lag=1m",
        "--nice",
        "50%",
        "--rate",
        "20MB",
        "--signal-query",
        "queue=SELECT COUNT(*) FROM jobs;",
        "--signal-file",
        "/run/stop",
        "--reason",
        "notes",
        "--ticket",
        "OPS-1",
        "--approved-by",
        "bob",
    ];
    let options = run_with(&line, false, "").unwrap().options;
    let limit = |name: &str| {
        let found = options.settings.limits.iter().find(|limit| limit.name == name);
        found.map(|limit| (limit.pause_at, limit.abort_at))
    };
    assert_eq!(limit("running"), Some((Some(50.0), Some(200.0))));
    assert_eq!(limit("queue"), Some((Some(1000.0), None)));
    assert_eq!(limit("lag"), Some((None, Some(60_000.0))));
    assert_eq!(limit("flag"), Some((Some(1.0), None)), "a file says yes or no");
    assert_eq!((options.settings.work_share, options.settings.rows_per_s), (500, None));
    assert_eq!(options.settings.bytes_per_s, Some(20_000_000));
    assert_eq!(options.own_queries[0].sql, "SELECT COUNT(*) FROM jobs");
    let origin = &options.origin;
    assert_eq!(
        (origin.reason.as_str(), origin.ticket.as_str(), origin.approved_by.as_str()),
        ("notes", "OPS-1", "bob")
    );
    assert!(origin.by.contains('@') && !origin.version.is_empty());
}

#[test]
fn when_to_swap_follows_from_the_window() {
    let when = |more: &[&str]| {
        let mut line = vec![ALTER, "--yes"];
        line.extend(more);
        run_with(&line, false, "").map(|order| order.options.settings.swap_when)
    };
    let window = ["--swap-window", "mon-fri 02:00-05:00 Europe/Berlin"];
    assert_eq!(when(&[]).unwrap(), SwapWhen::Now);
    assert_eq!(when(&["--swap", "wait"]).unwrap(), SwapWhen::Asked);
    assert_eq!(when(&window).unwrap(), SwapWhen::Window);
    assert_eq!(when(&["--swap", "window", window[0], window[1]]).unwrap(), SwapWhen::Window);
    for wrong in [&["--swap", "window"][..], &["--swap", "wait", window[0], window[1]]] {
        assert_eq!(ExitStatus::of(&when(wrong).unwrap_err()), ExitStatus::Usage, "{wrong:?}");
    }
}

#[test]
fn what_is_wrong_with_the_options_is_said_before_anything_is_contacted() {
    for (more, word) in [
        (&["--max-load", "queue=5"][..], "no signal is named queue"),
        (&["--signal-query", "SELECT 1"], "no name"),
        (&["--signal-query", "q="], "no query"),
        (&["--signal-query", "running=SELECT 1"], "already"),
        (&["--signal-query", "q=SELECT 1", "--signal-query", "q=SELECT 2"], "two signals"),
        (&["--signal-url", "q=ftp://host/"], "http"),
        (&["--copy-window", "someday"], "--copy-window"),
        (&["--deadline", "soon"], "--deadline"),
    ] {
        let mut line = vec![ALTER, "--yes"];
        line.extend(more);
        let error = run_with(&line, false, "").unwrap_err();
        assert_eq!(ExitStatus::of(&error), ExitStatus::Usage, "{more:?}");
        assert!(error.to_string().contains(word), "{more:?}: {error}");
    }
}

#[test]
fn a_deadline_is_a_moment_or_a_time_from_now() {
    for deadline in ["8h", "06:00 Europe/Berlin", "sun 06:00 Europe/Berlin"] {
        let line = [ALTER, "--yes", "--deadline", deadline, "--at-deadline", "swap"];
        let options = run_with(&line, false, "").unwrap().options;
        assert!(options.calendar.deadline.is_some(), "{deadline}");
    }
}
