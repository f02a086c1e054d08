//! From the options of `run` to how the run is carried out: limits, own signals, calendar, hooks, record.
//!
//! Whatever is wrong with them together is found here, before anything is contacted.

use underpin_core::machine::Settings;
use underpin_core::proof::Verification;
use underpin_core::signal::{Limit, SwapWhen};
use underpin_core::window::{Deadline, Then, Windows};
use underpin_dialect::{Given, Origin, OwnQuery};
use underpin_engine::{
    Calendar, FlagFile, HookOptions, OwnSignals, RunOptions, UrlSignal, signal_name, wall_ms,
};

use crate::args::{AtDeadline, DurationMs, KNOWN, LoadLimit, Rate, SwapTime, Verify, WorkArgs};
use crate::exit::Problem;
use crate::person;

/// How the run is carried out. `workers`: where nobody says how many.
///
/// # Errors
/// A usage error.
pub(crate) fn options(
    args: &WorkArgs,
    given: &[Given],
    workers: u32,
) -> Result<RunOptions, Problem> {
    let mut limits = limits(&args.load.max_load, &args.load.critical_load);
    let own_queries = own_queries(&args.load.signal_query)?;
    let own_signals = own_signals(args, &limits)?;
    must_be_known(&limits, &own_queries, args)?;
    limits.extend(own_signals.limits());
    let (rows_per_s, bytes_per_s) = match args.load.rate {
        Some(Rate::Rows(rows)) => (Some(rows), None),
        Some(Rate::Bytes(bytes)) => (None, Some(bytes)),
        Some(Rate::Off) | None => (None, None),
    };
    let settings = Settings {
        workers: args.load.workers.unwrap_or(workers),
        chunk_ms_target: args.load.chunk_time.0,
        lag_ms_max: args.load.max_lag.0,
        limits,
        work_share: args.load.nice.unwrap_or(1000),
        rows_per_s,
        bytes_per_s,
        swap_when: swap_when(args)?,
        verify: match args.verify {
            Verify::Full => Verification::Full,
            Verify::Sample => Verification::Sample,
            Verify::Off => Verification::Off,
        },
        swap_budget_ms: args.swap_budget.0,
        lock_patience_ms: args.lock_patience.0,
        ..Settings::default()
    };
    let record = &args.record;
    let hooks = record.on_event.clone().map(|command| HookOptions {
        command,
        timeout_ms: record.hook_timeout.0,
        veto: record.hook_veto,
    });
    let said = |text: &Option<String>| text.clone().unwrap_or_default();
    let origin = Origin {
        by: person::who(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        reason: said(&record.reason),
        ticket: said(&record.ticket),
        approved_by: said(&record.approved_by),
        options: given.to_vec(),
        ..Origin::default()
    };
    Ok(RunOptions {
        settings,
        keep_retired: args.keep_retired,
        origin,
        own_queries,
        own_signals,
        hooks,
        calendar: calendar(args)?,
        compare_after_ms: record.compare_after.0,
        ..RunOptions::default()
    })
}

/// One limit a name; the last word counts.
fn limits(pause: &[LoadLimit], abort: &[LoadLimit]) -> Vec<Limit> {
    let mut limits: Vec<Limit> = Vec::new();
    let mut at = |name: &str| match limits.iter().position(|limit| limit.name == name) {
        Some(at) => at,
        None => {
            limits.push(Limit { name: name.to_owned(), pause_at: None, abort_at: None });
            limits.len() - 1
        }
    };
    let pause: Vec<(usize, Option<f64>)> =
        pause.iter().map(|limit| (at(&limit.name), limit.value)).collect();
    let abort: Vec<(usize, Option<f64>)> =
        abort.iter().map(|limit| (at(&limit.name), limit.value)).collect();
    for (at, value) in pause {
        limits[at].pause_at = value;
    }
    for (at, value) in abort {
        limits[at].abort_at = value;
    }
    limits
}

fn own_queries(texts: &[String]) -> Result<Vec<OwnQuery>, Problem> {
    let how = "write NAME=SQL, as 'queue=SELECT COUNT(*) FROM jobs'";
    let mut queries: Vec<OwnQuery> = Vec::new();
    for text in texts {
        let wrong = |why: String| Problem::usage(format!("--signal-query {text}: {why}"), how);
        let (name, sql) = text.split_once('=').ok_or_else(|| wrong("it has no name".into()))?;
        let name = signal_name(name.trim()).map_err(wrong)?;
        let sql = sql.trim().trim_end_matches(';').to_owned();
        if sql.is_empty() {
            return Err(wrong("it has no query".into()));
        }
        queries.push(OwnQuery { name, sql });
    }
    Ok(queries)
}

fn own_signals(args: &WorkArgs, limits: &[Limit]) -> Result<OwnSignals, Problem> {
    let urls = args.load.signal_url.iter().map(|text| {
        UrlSignal::read(text, limits)
            // Not the text itself: it may hold a password.
            .map_err(|why| Problem::usage(format!("--signal-url: {why}"), ""))
    });
    Ok(OwnSignals {
        files: args.load.signal_file.iter().cloned().map(FlagFile::new).collect(),
        urls: urls.collect::<Result<_, _>>()?,
    })
}

/// A limit on a signal that nobody reads would pause the run for ever.
fn must_be_known(limits: &[Limit], queries: &[OwnQuery], args: &WorkArgs) -> Result<(), Problem> {
    let own: Vec<&str> = queries
        .iter()
        .map(|query| query.name.as_str())
        .chain(args.load.signal_url.iter().filter_map(|text| text.split('=').next()))
        .map(str::trim)
        .collect();
    for (index, name) in own.iter().enumerate() {
        if own[..index].contains(name) {
            let next = "give each signal a name of its own";
            return Err(Problem::usage(format!("two signals are named {name}"), next));
        }
    }
    let unknown = limits
        .iter()
        .find(|limit| !KNOWN.contains(&limit.name.as_str()) && !own.contains(&limit.name.as_str()));
    match unknown {
        None => Ok(()),
        Some(limit) => Err(Problem::usage(
            format!("no signal is named {}", limit.name),
            format!(
                "name one of {}, or your own with --signal-query or --signal-url",
                KNOWN.join(", ")
            ),
        )),
    }
}

fn swap_when(args: &WorkArgs) -> Result<SwapWhen, Problem> {
    match (args.when.swap, args.when.swap_window.is_empty()) {
        (None, true) | (Some(SwapTime::Now), true) => Ok(SwapWhen::Now),
        (Some(SwapTime::Wait), true) => Ok(SwapWhen::Asked),
        (None | Some(SwapTime::Window), false) => Ok(SwapWhen::Window),
        (Some(SwapTime::Window), true) => Err(Problem::usage(
            "--swap window without a window",
            "add --swap-window, as --swap-window 'mon-fri 02:00-05:00 Europe/Berlin'",
        )),
        (Some(SwapTime::Now | SwapTime::Wait), false) => Err(Problem::usage(
            "--swap-window goes with --swap window only",
            "leave --swap out, or the window",
        )),
    }
}

fn calendar(args: &WorkArgs) -> Result<Calendar, Problem> {
    let windows = |name: &str, texts: &[String]| match texts {
        [] => Ok(None),
        texts => Windows::read(texts)
            .map(Some)
            .map_err(|why| Problem::usage(format!("--{name}: {why}"), "")),
    };
    let deadline = match &args.when.deadline {
        None => None,
        Some(text) => {
            let then = match args.when.at_deadline {
                None | Some(AtDeadline::Stop) => Then::Stop,
                Some(AtDeadline::Abort) => Then::Abort,
                Some(AtDeadline::Swap) => Then::Swap,
            };
            Some(deadline(text, then)?)
        }
    };
    Ok(Calendar {
        copy: windows("copy-window", &args.when.copy_window)?,
        swap: windows("swap-window", &args.when.swap_window)?,
        deadline,
    })
}

fn deadline(text: &str, then: Then) -> Result<Deadline, Problem> {
    let now_ms = wall_ms();
    if let Ok(DurationMs(ms)) = DurationMs::parse(text) {
        return Ok(Deadline::after(now_ms, ms, then));
    }
    Deadline::read(text, then, now_ms).map_err(|why| {
        Problem::usage(format!("--deadline: {why}"), "or write a time from now, as 8h")
    })
}
