//! `underpin-sim`: plays seeds of the simulator from the command line.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use underpin_sim::{Fault, Flow, LoseAt, Options, first_caught, run, run_many};

const USAGE: &str = "\
usage: underpin-sim --seed N [--flow FLOW] [--fault NAME] [--crash-at STEP] [--abort-at STEP]
                    [--lose NTH] [--lose-done NTH] [--small] [--log]           plays one seed
       underpin-sim --seeds COUNT [--from N] [--flow FLOW] [--fault NAME]             plays many
       underpin-sim --prove                  sows every fault and tells how it is caught

FLOW is keys or blocks; where it is not given, half of the seeds play each";

/// Seeds in which a fault must show.
const PROVE_SEEDS_MAX: u64 = 6_000;

#[derive(Default)]
struct Args {
    seed: Option<u64>,
    seeds: Option<u64>,
    from: u64,
    proves: bool,
    options: Options,
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(why) => {
            complain(&format!("{why}\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    match (args.seed, args.seeds) {
        _ if args.proves => prove(),
        (Some(seed), None) => play_one(seed, args.options),
        (None, Some(count)) => play_many(args.from, count, args.options),
        _ => {
            complain(USAGE);
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut args = Args::default();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        let number = |text: String| {
            text.parse::<u64>().map_err(|_| format!("{text} is no number: give a count from 0 on"))
        };
        match word.as_str() {
            "--seed" => args.seed = Some(number(value()?)?),
            "--seeds" => args.seeds = Some(number(value()?)?),
            "--from" => args.from = number(value()?)?,
            "--crash-at" => args.options.crash_at = Some(number(value()?)?),
            "--abort-at" => args.options.abort_at = Some(number(value()?)?),
            word @ ("--lose" | "--lose-done") => {
                let is_done = word == "--lose-done";
                args.options.lose_at = Some(LoseAt { nth: number(value()?)?, is_done });
            }
            "--small" => args.options.small = true,
            "--fault" => {
                let name = value()?;
                let fault = Fault::from_name(&name);
                args.options.fault =
                    Some(fault.ok_or_else(|| format!("{name} is no fault: --prove lists them"))?);
            }
            "--flow" => {
                args.options.flow = Some(match value()?.as_str() {
                    "keys" => Flow::KeyRanges,
                    "blocks" => Flow::Blocks,
                    other => return Err(format!("{other} is no flow: keys or blocks")),
                });
            }
            "--log" => args.options.keep_log = true,
            "--prove" => args.proves = true,
            other => return Err(format!("{other} is not known")),
        }
    }
    Ok(args)
}

fn play_one(seed: u64, options: Options) -> ExitCode {
    let outcome = run(seed, options);
    for line in &outcome.log {
        say(line);
    }
    say(&outcome.counts.to_string());
    match outcome.breach {
        None => {
            say(&format!("seed {seed}: every promise was kept"));
            ExitCode::SUCCESS
        }
        Some(breach) => {
            say(&format!("seed {seed}: BROKEN: {breach}"));
            ExitCode::FAILURE
        }
    }
}

fn play_many(from: u64, count: u64, options: Options) -> ExitCode {
    let begun = Instant::now();
    let summary = run_many(from, count, options);
    say(&summary.counts.to_string());
    say(&format!("{:.1} s", begun.elapsed().as_secs_f64()));
    for outcome in &summary.failed {
        let Some(breach) = &outcome.breach else { continue };
        say(&format!("seed {}: BROKEN: {breach}", outcome.seed));
        let fault = options.fault.map(|fault| format!(" --fault {}", fault.name()));
        let flow = options.flow.map(|flow| format!(" --flow {}", flow_name(flow)));
        say(&format!(
            "  replay it: cargo xtask sim --seed {}{}{} --log",
            outcome.seed,
            flow.unwrap_or_default(),
            fault.unwrap_or_default()
        ));
    }
    if summary.failed.is_empty() {
        say("every promise was kept");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn prove() -> ExitCode {
    let mut is_blind = false;
    for (fault, name) in Fault::ALL {
        for flow in fault.flows() {
            let way = flow_name(*flow);
            match first_caught(fault, *flow, PROVE_SEEDS_MAX) {
                Some((seed, breach)) => {
                    say(&format!("{name:>22} {way:>6}: seed {seed:>4}: {breach}"));
                }
                None => {
                    say(&format!("{name:>22} {way:>6}: NOT CAUGHT in {PROVE_SEEDS_MAX} seeds"));
                    is_blind = true;
                }
            }
        }
    }
    if is_blind { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn flow_name(flow: Flow) -> &'static str {
    match flow {
        Flow::KeyRanges => "keys",
        Flow::Blocks => "blocks",
    }
}

/// Prints a line. A reader that has gone away, as `head` does, is no reason to fail.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Prints a complaint.
fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
