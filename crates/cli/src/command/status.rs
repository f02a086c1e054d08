//! `underpin status`: shows the runs that are not finished, how they fare, and how each goes on.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::sleep;
use underpin_core::signal::Unit;
use underpin_core::way::Way;
use underpin_dialect::Database;
use underpin_engine::{Live, RunStatus, SignalView, Standing};

use super::verify::doubt;
use super::{introduce, shell};
use crate::args::{GlobalArgs, StatusArgs};
use crate::backend::{Backend, SessionWishes, Task};
use crate::exit::ExitStatus;
use crate::resolve::TableArg;
use crate::signals::Signals;
use crate::ui::{Printer, Reading, bytes, count, listed, millis, span, table};

/// Time between two looks of `--watch`.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Clears the screen and goes to its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Prints the list, once or again and again.
pub(super) async fn status(
    args: &StatusArgs,
    global: &GlobalArgs,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    let wanted = args.table.as_deref().map(TableArg::parse).transpose()?;
    let backend = Backend::resolve(&args.url, global, SessionWishes::default(), &[])?;
    introduce(&backend, global, printer);
    let page = Page { args, wanted, schema: backend.default_schema(), global, backend: &backend };
    if !args.watch {
        let of = page.of();
        page.print(&backend.carry_out(Look { of }).await?, printer);
        return Ok(ExitStatus::Done);
    }
    let mut signals = Signals::listen().context("listening to signals")?;
    tokio::select! {
        ended = backend.carry_out(Watch { page: &page, printer }) => ended.map(|()| ExitStatus::Done),
        () = signals.next() => Ok(ExitStatus::Done),
    }
}

/// Looks once. `of`: one table only.
pub(super) struct Look {
    pub(super) of: Option<(String, String)>,
}

impl Task for Look {
    type Output = Vec<RunStatus>;

    async fn on<D: Database>(self, db: Arc<D>) -> anyhow::Result<Vec<RunStatus>> {
        Ok(underpin_engine::status(&*db, pair(&self.of)).await?)
    }
}

struct Watch<'a> {
    page: &'a Page<'a>,
    printer: &'a Printer,
}

impl Task for Watch<'_> {
    type Output = ();

    async fn on<D: Database>(self, db: Arc<D>) -> anyhow::Result<()> {
        let of = self.page.of();
        let mut control = db.control().await?;
        let is_screen = !self.printer.is_json() && std::io::stdout().is_terminal();
        // Ends when no run is left, or with Ctrl-C.
        loop {
            let runs = underpin_engine::look(&mut control, pair(&of)).await?;
            if is_screen {
                self.printer.data(CLEAR);
            }
            self.page.print(&runs, self.printer);
            if !runs.iter().any(|run| is_open(run) && self.page.is_wanted(run)) {
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

fn pair(of: &Option<(String, String)>) -> Option<(&str, &str)> {
    of.as_ref().map(|(schema, table)| (schema.as_str(), table.as_str()))
}

/// What is shown, and how.
struct Page<'a> {
    args: &'a StatusArgs,
    wanted: Option<TableArg>,
    schema: Option<String>,
    global: &'a GlobalArgs,
    backend: &'a Backend,
}

impl Page<'_> {
    /// The one table that is asked for, where its schema is known.
    fn of(&self) -> Option<(String, String)> {
        let table = self.wanted.as_ref()?;
        let schema = table.schema.clone().or_else(|| self.schema.clone())?;
        Some((schema, table.name.clone()))
    }

    fn is_wanted(&self, run: &RunStatus) -> bool {
        self.wanted.as_ref().is_none_or(|table| table.is(&run.table, self.schema.as_deref()))
    }

    fn print(&self, runs: &[RunStatus], printer: &Printer) {
        let shown: Vec<RunStatus> = runs
            .iter()
            .filter(|run| self.args.all || is_open(run))
            .filter(|run| self.is_wanted(run))
            .cloned()
            .collect();
        if printer.is_json() {
            for run in &shown {
                printer.data(&format!("{}\n", listed("run", run)));
            }
        } else if shown.is_empty() {
            let what = if self.args.all { "no runs" } else { "no unfinished runs" };
            printer.talk(&format!("{what} (state in {})", self.global.state_schema));
        } else {
            let place_of = |schema: &str, table: &str| self.backend.place_of(schema, table);
            let mut text = page(&shown, self.global, &place_of);
            if self.wanted.is_some() {
                shown.iter().filter_map(|run| run.live.as_ref()).for_each(|live| {
                    text.push_str(&details(live));
                });
            }
            printer.data(&text);
        }
    }
}

fn is_open(run: &RunStatus) -> bool {
    matches!(run.standing, Standing::Running | Standing::Silent | Standing::Unattended)
        || is_at_rest(run)
}

fn is_at_rest(run: &RunStatus) -> bool {
    matches!(run.standing, Standing::Revertible | Standing::Reverted)
}

/// What a person is told about how a run stands.
pub(super) fn standing(run: &RunStatus) -> String {
    match run.standing {
        Standing::Running => "running".to_owned(),
        Standing::Silent => format!("silent for {}", span(run.silent_s)),
        Standing::Unattended => format!("dead since {}", span(run.silent_s)),
        Standing::Revertible => "revertible".to_owned(),
        Standing::Reverted => "reverted".to_owned(),
        Standing::Done => "done".to_owned(),
        Standing::Aborted => "aborted".to_owned(),
        Standing::Failed => "failed".to_owned(),
    }
}

/// Schema and table → the URL and the table's name to show.
type PlaceOf<'a> = &'a dyn Fn(&str, &str) -> (String, String);

/// The table, and below it for each unfinished run what can be done.
fn page(runs: &[RunStatus], global: &GlobalArgs, place_of: PlaceOf<'_>) -> String {
    let rows: Vec<Vec<String>> = runs
        .iter()
        .map(|run| {
            // What its runner says is newer than the checkpoint.
            let said = run.live.as_ref().filter(|_| run.standing == Standing::Running);
            let said = said.map(|live| live.figures.phase.clone());
            let phase = said.or_else(|| run.phase.clone());
            let phase = phase.unwrap_or_else(|| "unreadable".to_owned());
            // The server's time stamp without fractions.
            let began = run.created_at.split('.').next().unwrap_or_default().to_owned();
            let rows = run.live.as_ref().map_or(0, |live| live.figures.rows_copied);
            let rows = count(std::cmp::max(rows, run.rows_copied));
            vec![run.table.clone(), standing(run), phase, rows, began]
        })
        .collect();
    let mut out = table(&["TABLE", "STATE", "PHASE", "ROWS COPIED", "BEGAN (UTC)"], &rows);
    for run in runs.iter().filter(|run| is_open(run)) {
        out.push_str(&next_steps(run, global, place_of));
    }
    out
}

fn next_steps(run: &RunStatus, global: &GlobalArgs, place_of: PlaceOf<'_>) -> String {
    let (schema, name) = run.table.split_once('.').unwrap_or(("", &run.table));
    let (url, name) = place_of(schema, name);
    let mut out = format!("\n{}: {}\n", run.table, run.statement.replace('\n', "\n  "));
    if is_at_rest(run) {
        let command = |verb: &str| shell::underpin(verb, &[&url, &name], global);
        let (what, turn) = match run.standing {
            Standing::Reverted => ("make again", format!("{} --again", command("resume"))),
            _ => ("take back", command("revert")),
        };
        out.push_str(&format!("  {what:<10}  {turn}\n  end with    {}\n", command("finish")));
        return out;
    }
    let alive = run.live.as_ref().filter(|_| run.standing != Standing::Unattended);
    for line in alive.map(|live| now(&Reading::from(&live.figures))).unwrap_or_default() {
        out.push_str(&format!("  {line}\n"));
    }
    if let Some(doubt) = doubt(run) {
        out.push_str(&format!("  verified    {doubt}\n"));
    }
    if run.standing == Standing::Unattended {
        let since = run.updated_at.split('.').next().unwrap_or_default();
        out.push_str(&format!("  no program works on it; last sign of life {since} UTC\n"));
        let go_on = match (run.direction, run.phase.as_deref()) {
            (Way::Forward, _) if !is_made(run) => {
                shell::go_on(&url, &run.statement, &run.options, global)
            }
            _ => shell::underpin("resume", &[&url, &name], global),
        };
        out.push_str(&format!("  go on with  {go_on}\n"));
    }
    // After the swap the change is made: what is left is to go on.
    if !is_made(run) {
        let abort = shell::underpin("abort", &[&url, &name], global);
        out.push_str(&format!("  end with    {abort}\n"));
    }
    if run.standing == Standing::Silent || run.phase.is_none() {
        out.push_str(&format!("  note        {}\n", run.next));
    }
    out
}

/// Whether the swap of the way that the run goes is made.
fn is_made(run: &RunStatus) -> bool {
    matches!(run.phase.as_deref(), Some("arrive" | "revertible" | "finish"))
}

/// How a run fares, a line a concern.
fn now(reading: &Reading) -> Vec<String> {
    let mut lines: Vec<String> = reading.rows().into_iter().collect();
    lines.push(reading.load());
    lines.extend(reading.waiting());
    lines
}

/// Signals and settings of a run.
fn details(live: &Live) -> String {
    let limit = |value: Option<f64>, unit| {
        value.map_or_else(|| "-".to_owned(), |value| in_unit(value, unit))
    };
    let row = |signal: &SignalView| {
        let value = match signal.value {
            Some(value) => in_unit(value, signal.unit),
            None => format!("unreadable: {}", signal.error),
        };
        vec![
            signal.name.clone(),
            if signal.of.is_empty() { "-".to_owned() } else { signal.of.clone() },
            value,
            limit(signal.limit, signal.unit),
            limit(signal.critical, signal.unit),
            millis(signal.age_ms),
            signal.source.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = live.figures.signals.iter().map(row).collect();
    let head = ["SIGNAL", "OF", "VALUE", "LIMIT", "CRITICAL", "AGE", "SOURCE"];
    let settings: Vec<String> =
        live.settings.iter().map(|given| format!("{}={}", given.name, given.value)).collect();
    format!(
        "\n{}\nsettings: {}\nrunner: {}, version {}\n",
        table(&head, &rows),
        settings.join(" "),
        live.by,
        live.version
    )
}

/// A number of a signal for people.
fn in_unit(value: f64, unit: Unit) -> String {
    // Beyond what these hold there is nothing to be measured.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = f64::max(value, 0.0) as u64;
    match unit {
        Unit::Ms => millis(whole),
        Unit::Bytes => bytes(whole),
        Unit::Permille => format!("{:.1}%", value / 10.0),
        Unit::Count if value.fract() == 0.0 => count(whole),
        Unit::Count => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use underpin_dialect::Given;
    use underpin_engine::Figures;

    use super::*;
    use crate::args::Cli;

    fn run(table: &str, standing: Standing) -> RunStatus {
        RunStatus {
            run_id: "r1".into(),
            table: table.into(),
            statement: "ALTER TABLE orders ADD note TEXT".into(),
            standing,
            phase: Some("copy".into()),
            direction: Way::Forward,
            rows_copied: 1_234_000,
            rows_verified: 0,
            verified: None,
            created_at: "2026-11-21 03:00:00.123456".into(),
            updated_at: "2026-11-21 03:05:00.000000".into(),
            silent_s: 720,
            next: "look".into(),
            by: "ann@ops1".into(),
            reason: String::new(),
            ticket: String::new(),
            approved_by: String::new(),
            options: vec![Given { name: "nice".into(), value: "50%".into() }],
            ended_at: None,
            live: None,
        }
    }

    fn text(runs: &[RunStatus]) -> String {
        let global = Cli::try_parse_from(["underpin", "status", "mysql://"]).unwrap().global;
        let place_of =
            |schema: &str, table: &str| (format!("mysql://a@db1/{schema}"), table.to_owned());
        page(runs, &global, &place_of)
    }

    #[test]
    fn the_page_says_how_each_run_goes_on() {
        let runs = [run("shop.orders", Standing::Running), run("shop.items", Standing::Unattended)];
        assert_eq!(
            text(&runs),
            "\
TABLE        STATE              PHASE  ROWS COPIED  BEGAN (UTC)
shop.orders  running            copy     1,234,000  2026-11-21 03:00:00
shop.items   dead since 12 min  copy     1,234,000  2026-11-21 03:00:00

shop.orders: ALTER TABLE orders ADD note TEXT
  end with    underpin abort mysql://a@db1/shop orders

shop.items: ALTER TABLE orders ADD note TEXT
  no program works on it; last sign of life 2026-11-21 03:05:00 UTC
  go on with  underpin run mysql://a@db1/shop 'ALTER TABLE orders ADD note TEXT' --nice 50%
  end with    underpin abort mysql://a@db1/shop items
"
        );
    }

    #[test]
    fn finished_runs_need_no_next_step() {
        let text = text(&[run("shop.orders", Standing::Done)]);
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("shop.orders  done "), "{text}");
    }

    #[test]
    fn after_the_swap_abort_is_not_offered() {
        let finishing =
            RunStatus { phase: Some("finish".into()), ..run("a.b", Standing::Unattended) };
        let text = text(&[finishing]);
        assert!(text.contains("go on with") && !text.contains("end with"), "{text}");
    }

    #[test]
    fn what_is_odd_is_explained() {
        let silent = run("a.b", Standing::Silent);
        assert!(text(&[silent]).contains("silent for 12 min"));
        let damaged = RunStatus { phase: None, ..run("a.b", Standing::Unattended) };
        let text = text(&[damaged]);
        assert!(text.contains("unreadable") && text.contains("  note        look\n"), "{text}");
    }

    fn live() -> Live {
        let signal = SignalView {
            name: "lag".into(),
            of: "db2:3306".into(),
            source: "heartbeat".into(),
            unit: Unit::Ms,
            value: Some(3_100.0),
            limit: Some(2_000.0),
            critical: None,
            age_ms: 210,
            error: String::new(),
        };
        let unread = SignalView { value: None, error: "refused".into(), ..signal.clone() };
        let figures = Figures {
            phase: "copy".into(),
            rows_copied: 1_300_000,
            rows_estimate: 2_000_000,
            lag_ms: Some(3_100),
            waiting: Some("replica db2:3306 lags 3.1 s (limit 2 s)".into()),
            waiting_ms: 12_000,
            signals: vec![signal, unread],
            ..Figures::default()
        };
        let settings = vec![Given { name: "max-lag".into(), value: "2s".into() }];
        let (by, version) = ("ann@ops1".to_owned(), "0.1.0".to_owned());
        Live { by, version, settings, figures, ..Live::default() }
    }

    #[test]
    fn a_living_run_shows_how_it_fares_and_why_it_waits() {
        let running = RunStatus { live: Some(live()), ..run("shop.orders", Standing::Running) };
        assert_eq!(
            text(&[running]),
            "\
TABLE        STATE    PHASE  ROWS COPIED  BEGAN (UTC)
shop.orders  running  copy     1,300,000  2026-11-21 03:00:00

shop.orders: ALTER TABLE orders ADD note TEXT
  65%, 1,300,000 of about 2,000,000 rows
  backlog 0, lag 3.1 s
  paused 12 s: replica db2:3306 lags 3.1 s (limit 2 s)
  end with    underpin abort mysql://a@db1/shop orders
"
        );
        // What a dead one said last is old.
        let dead = RunStatus { live: Some(live()), ..run("shop.orders", Standing::Unattended) };
        assert!(!text(&[dead]).contains("paused"));
    }

    #[test]
    fn signals_have_name_value_limit_age_and_source() {
        assert_eq!(
            details(&live()),
            "
SIGNAL  OF        VALUE                LIMIT  CRITICAL  AGE     SOURCE
lag     db2:3306  3.1 s                2.0 s  -         210 ms  heartbeat
lag     db2:3306  unreadable: refused  2.0 s  -         210 ms  heartbeat

settings: max-lag=2s
runner: ann@ops1, version 0.1.0
"
        );
        let shown = [
            in_unit(2.5e9, Unit::Bytes),
            in_unit(805.0, Unit::Permille),
            in_unit(1_234.0, Unit::Count),
            in_unit(0.5, Unit::Count),
        ];
        assert_eq!(shown, ["2.5 GB", "80.5%", "1,234", "0.50"]);
    }

    #[test]
    fn a_line_for_programs() {
        let line = listed("run", &run("shop.orders", Standing::Unattended));
        assert!(line.starts_with(r#"{"event":"run","run_id":"r1","#), "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&value["standing"], &value["schema"]), (&"unattended".into(), &1.into()));
        assert_eq!(value["rows_copied"], 1_234_000);
    }
}
