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
    assert_eq!((run.workers, run.chunk_time.0, run.max_lag.0), (None, 400, 2_000));
    assert_eq!((run.lock_timeout.0, run.swap_budget.0), (1_000, 300));
    assert_eq!(run.lock_patience.0, 1_800_000);
    assert_eq!((run.verify, run.shape.indexes), (Verify::Full, Indexes::Auto));
    assert_eq!((run.shape.strategy, run.shape.capture), (Strategy::Auto, Capture::Row));
    assert!(!run.yes && !run.keep_retired && run.shape.replicas.is_empty());
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
fn help_and_version_are_no_failures() {
    for line in [&["--help"][..], &["--version"], &["run", "--help"]] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 0, "{line:?}");
    }
    assert_eq!(parse(&[]).unwrap_err().exit_code(), 2);
}
