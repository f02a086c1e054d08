//! The forms of the command line, and its help.

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::*;
use crate::exit::ExitStatus;

const ALTER: &str = "ALTER TABLE t ADD a INT";

fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once(&"underpin").chain(line))
}

fn kind(line: &[&str]) -> ErrorKind {
    parse(line).unwrap_err().kind()
}

#[test]
fn the_definitions_agree_with_each_other() {
    Cli::command().debug_assert();
}

#[test]
fn the_help_names_every_exit_code() {
    let help = Cli::command().render_long_help().to_string();
    let codes = help.split_once("Exit codes:").unwrap().1;
    for status in ExitStatus::ALL {
        let code = status.code().to_string();
        let named = codes.lines().any(|line| line.split_whitespace().next() == Some(&code));
        assert!(named, "{status:?} ({code}) is missing in {codes}");
    }
}

#[test]
fn every_option_of_every_command_has_a_help_text() {
    for command in Cli::command().get_subcommands() {
        assert!(command.get_about().is_some() && command.get_after_long_help().is_some());
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{} {argument:?}", command.get_name());
        }
    }
}

#[test]
fn there_is_one_statement() {
    assert_eq!(kind(&["run", "mysql://"]), ErrorKind::MissingRequiredArgument);
    assert_eq!(kind(&["plan", "mysql://"]), ErrorKind::MissingRequiredArgument);
    assert_eq!(kind(&["run", "mysql://", ALTER, "--file", "x"]), ErrorKind::ArgumentConflict);
    assert!(parse(&["run", "mysql://", ALTER]).is_ok());
    assert!(parse(&["run", "mysql://", "-f", "x"]).is_ok());
    assert!(parse(&["plan", "mysql://", "-"]).is_ok());
}

#[test]
fn sources_of_the_statement() {
    let source = |line: &[&str]| match parse(line).unwrap().command {
        Command::Plan(args) => args.statement.source().unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(source(&["plan", "mysql://", ALTER]), Source::Text(ALTER.into()));
    assert_eq!(source(&["plan", "mysql://", "-"]), Source::StandardInput);
    assert_eq!(source(&["plan", "mysql://", "--file", "-"]), Source::StandardInput);
    assert_eq!(source(&["plan", "mysql://", "--file", "x"]), Source::File("x".into()));
}

#[test]
fn global_options_stand_before_or_after_the_command() {
    for line in [
        ["--output", "json", "-v", "status", "mysql://"],
        ["status", "mysql://", "--output", "json", "-v"],
    ] {
        let global = parse(&line).unwrap().global;
        assert_eq!((global.output, global.verbose), (Output::Json, 1));
        assert_eq!(global.state_schema, "underpin");
    }
}

#[test]
fn defaults_are_as_documented() {
    let Command::Run(run) = parse(&["run", "mysql://", ALTER]).unwrap().command else { panic!() };
    let load = &run.work.load;
    assert_eq!((load.workers, load.chunk_time.0, load.max_lag.0), (None, 400, 2_000));
    assert!(load.max_load.is_empty() && load.nice.is_none() && load.rate.is_none());
    assert!(run.work.when.swap.is_none() && run.work.when.deadline.is_none());
    assert_eq!((run.work.record.hook_timeout.0, run.work.record.compare_after.0), (10_000, 5_000));
    assert_eq!((run.work.lock_timeout.0, run.work.swap_budget.0), (1_000, 300));
    assert_eq!(run.work.lock_patience.0, 1_800_000);
    assert_eq!((run.work.verify, run.shape.indexes), (Verify::Full, Indexes::Auto));
    assert_eq!((run.shape.strategy, run.shape.capture), (Strategy::Auto, Capture::Row));
    assert!(!run.yes && !run.work.keep_retired && run.shape.replicas.is_empty());
}

#[test]
fn values_out_of_bounds_are_refused() {
    for option in [
        ["--workers", "0"],
        ["--workers", "65"],
        ["--chunk-time", "400"],
        ["--chunk-time", "1ms"],
        ["--max-lag", "2 weeks"],
        ["--lock-timeout", "5ms"],
        ["--lock-timeout", "61s"],
        ["--capture", "table"],
        ["--swap-budget", "1m"],
        ["--lock-patience", "8d"],
        ["--verify", "sometimes"],
        ["--ssl-mode", "maybe"],
        ["--state-schema", ""],
        ["--max-load", "running"],
        ["--max-load", "lag=3s"],
        ["--critical-load", "disk-free=20"],
        ["--nice", "50"],
        ["--rate", "fast"],
        ["--swap", "later"],
        ["--at-deadline", "stop"],
        ["--hook-timeout", "5s"],
        ["--on-event", ""],
        ["--compare-after", "1h"],
    ] {
        let mut line = vec!["run", "mysql://", ALTER];
        line.extend(option);
        let error = parse(&line).unwrap_err();
        assert_eq!(error.exit_code(), i32::from(ExitStatus::Usage.code()), "{option:?}");
    }
}

#[test]
fn replicas_add_up() {
    let line = ["plan", "mysql://", ALTER, "--replica", "mysql://b", "--replica", "mysql://c"];
    let Command::Plan(plan) = parse(&line).unwrap().command else { panic!() };
    assert_eq!(plan.shape.replicas, ["mysql://b", "mysql://c"]);
}

#[test]
fn json_is_the_short_of_output_json() {
    let read = |line: &[&str]| Cli::read_from(std::iter::once(&"underpin").chain(line));
    let cli = read(&["status", "mysql://", "--json"]).unwrap();
    assert_eq!(cli.global.output, Output::Json);
    assert!(read(&["status", "mysql://", "--json", "--output", "text"]).is_err());
}

#[test]
fn options_that_were_given_are_put_on_record() {
    let line = [
        "underpin",
        "run",
        "mysql://a:b@db1/shop",
        ALTER,
        "--yes",
        "--output",
        "json",
        "--max-load",
        "running=50",
        "--max-load",
        "write-latency=20ms",
        "--keep-retired",
        "--replica",
        "mysql://a:secret@db2",
        "--ssl-mode",
        "required",
    ];
    let Command::Run(run) = Cli::read_from(line).unwrap().command else { panic!() };
    let mut given: Vec<(&str, &str)> =
        run.given.iter().map(|given| (given.name.as_str(), given.value.as_str())).collect();
    given.sort_unstable();
    assert_eq!(
        given,
        [
            ("keep-retired", ""),
            ("max-load", "running=50"),
            ("max-load", "write-latency=20ms"),
            ("replica", "mysql://a@db2"),
            ("ssl-mode", "required"),
        ]
    );
}

#[test]
fn what_is_set_is_spelled_as_the_options() {
    let line = ["set", "mysql://", "orders", "max-lag=3s", "rate=off"];
    let Command::Set(set) = parse(&line).unwrap().command else { panic!() };
    assert_eq!(set.settings.iter().map(|it| it.0.len()).sum::<usize>(), 3);
    assert_eq!(kind(&["set", "mysql://", "orders"]), ErrorKind::MissingRequiredArgument);
    assert_eq!(kind(&["set", "mysql://", "orders", "max-lag=3"]), ErrorKind::ValueValidation);
}

#[test]
fn help_and_version_are_no_failures() {
    for line in [&["--help"][..], &["--version"], &["run", "--help"]] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 0, "{line:?}");
    }
    assert_eq!(parse(&[]).unwrap_err().exit_code(), 2);
}
